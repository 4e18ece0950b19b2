"""Sentences that are longer than a network: read in pieces that overlap, or cut off."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from models.core.config import require
from models.task import Batch
from models.text.backbone import Backbone

Sentences = Sequence[Sequence[str]]
SPLIT, CUT = "split", "cut"
OVERLAP = 16
_MOST_TOKENS = 18
"""That a character can become: NFKC writes the ligature U+FDFA out in as many."""


class Piece(NamedTuple):
    """Words of a sentence that the network reads together."""

    sentence: int
    start: int
    end: int
    """The words from `start` up to, not including, `end`."""
    asked_start: int
    asked_end: int
    """Those that the network is asked about here; all others of them are context."""


@dataclass(frozen=True)
class LongSentences:
    """What becomes of a sentence that has more tokens than the network has places."""

    backbone: Backbone
    how: str = SPLIT
    """SPLIT: it is read in pieces, and each word is asked about once. CUT: only the first piece is read."""
    overlap: int = OVERLAP
    """Words that a piece has in common with the next, or fewer: at most half of its tokens."""

    def __post_init__(self) -> None:
        require(self.how in (SPLIT, CUT), "long_sentences", f"{SPLIT!r} or {CUT!r}", self.how)
        require(self.overlap >= 0, "overlap", ">= 0", self.overlap)

    def pieces(self, sentences: Sentences) -> list[Piece]:
        """Return the pieces of all sentences, in their order; of a sentence that fits, the one."""
        room = self.backbone.room
        pieces: list[Piece] = []
        for number, words in enumerate(sentences):
            if sum(map(_most_tokens, words)) <= room:  # which spares most sentences the counting
                spans = [(0, len(words))]
            else:
                spans = list(cut_to_size(self.backbone.count_tokens(words), room, self.overlap))
            pieces += _asked_once(number, spans if self.how == SPLIT else spans[:1])
        return pieces

    def note(self, sentences: Sentences) -> str:
        """Return a line that says how many sentences are too long, and what of them is lost; "" for none."""
        ends: dict[int, int] = {}
        several = set()
        for piece in self.pieces(sentences):
            several |= {piece.sentence} & ends.keys()
            ends[piece.sentence] = piece.end
        cut = {n: len(words) - ends[n] for n, words in enumerate(sentences) if ends[n] < len(words)}
        long, num_words = len(several | cut.keys()), sum(map(len, sentences))
        if not long:
            return ""
        of_all = f"{long:,} of {len(sentences):,} sentences"
        line = f"{of_all} are longer than the network's {self.backbone.room:,} tokens"
        if not cut:
            return f"{line}: read in pieces that share {self.overlap} words, none is lost"
        lost = sum(cut.values())
        of_words = f"{lost:,} of {num_words:,} words ({lost / num_words:.1%})"
        return f"{line}: {of_words} are cut off; long_sentences = {SPLIT!r} in task-options reads them"


def cut_to_size(tokens: Sequence[int], room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield the first word and the end of each piece of a sentence, whose words have so many `tokens`.

    A piece is as long as its place allows, and a word of more tokens than that has one for itself, which the
    tokenizer cuts.
    """
    before = [0, *accumulate(tokens)]  # tokens before each word
    start = 0
    while True:
        end = start + 1
        while end < len(tokens) and before[end + 1] - before[start] <= room:
            end += 1
        yield start, end
        if end >= len(tokens):
            return
        following = max(start + 1, end - overlap)
        while before[end] - before[following] > room // 2:
            following += 1
        start = following


def _asked_once(sentence: int, spans: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    """Yield the pieces; of the words that two share, each is asked about those that it knows more around."""
    borders = [spans[0][0]]
    borders += [(start + end + 1) // 2 for (_, end), (start, _) in pairwise(spans)]
    borders.append(spans[-1][1])
    for (start, end), asked in zip(spans, pairwise(borders), strict=True):
        yield Piece(sentence, start, end, *asked)


def encode(backbone: Backbone, sentences: Sentences, pieces: Sequence[Piece]) -> tuple[Batch, Tensor]:
    """Return the tokens of pieces as `Backbone.encode` does; words are numbered as in their sentences."""
    batch, first = backbone.encode(
        [list(sentences[piece.sentence][piece.start : piece.end]) for piece in pieces]
    )
    starts = torch.tensor([piece.start for piece in pieces])[:, None]
    return batch, torch.where(first >= 0, first + starts, first)


def is_asked(first: Tensor, pieces: Sequence[Piece]) -> Tensor:
    """Return which tokens belong to words that are asked about in their piece: (B, L) -> (B, L).

    `first` are the words that tokens begin. A token after a piece's last word is counted to that word.
    """
    words = first.cummax(1).values
    start = torch.tensor([piece.asked_start for piece in pieces])[:, None]
    end = torch.tensor([piece.asked_end for piece in pieces])[:, None]
    return (words >= start) & (words < end)


def _most_tokens(word: str) -> int:
    """Return a number of tokens that no tokenizer makes more of a word; a mark of its beginning is one."""
    return 1 + len(word) * (1 if word.isascii() else _MOST_TOKENS)
