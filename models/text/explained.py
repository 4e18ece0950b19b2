"""Which words a transformer goes by: gradients at their embeddings, or what its layers attend to."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from models.core.errors import UserError
from models.explain.attribution import ATTENTION, INTEGRATED_GRADIENTS, SALIENCY, attribute
from models.task import Batch
from models.text.backbone import Backbone
from models.text.pieces import Piece, Sentences, encode
from models.text.tokens import logits_of

METHODS: tuple[str, ...] = (INTEGRATED_GRADIENTS, SALIENCY, ATTENTION)
_AT_ONCE = 8
"""Pieces that are encoded together."""


class Question(NamedTuple):
    """What of a piece is asked about."""

    piece: Piece
    answer: int
    """A label's number."""
    word: int | None = None
    """The word whose label it is, by its place in the sentence; None for a label of the whole text."""
    share: float = 1.0
    """The part that the piece has in its sentence's score."""


class OfSentence(NamedTuple):
    """What a method tells of one sentence."""

    values: Tensor
    """A number for each of its words (P,), float64; 0 for those that no piece holds."""
    score: float
    start: float


def explain_words(
    model: nn.Module, backbone: Backbone, sentences: Sentences, questions: Sequence[Question], method: str
) -> list[OfSentence]:
    """Tell what each word of each sentence counts for the answers; of several pieces, by their shares.

    By "integrated-gradients" the embeddings of words begin as those of padding, and the values of a word's
    tokens add up. By "saliency" it is the length of the gradient at all of a word's embeddings. By
    "attention" it is the share of its tokens in what the asked token, or the first one, is made of.
    """
    sums = [torch.zeros(len(words), dtype=torch.float64) for words in sentences]
    score, start = (torch.zeros(len(sentences), dtype=torch.float64) for _ in range(2))
    for first in range(0, len(questions), _AT_ONCE):
        chosen = questions[first : first + _AT_ONCE]
        for question, found in zip(
            chosen, _of_pieces(model, backbone, sentences, chosen, method), strict=True
        ):
            number, share = question.piece.sentence, question.share
            values = found.values * share
            if method == SALIENCY:
                values = values.square()
            sums[number].index_add_(0, found.words, values)
            score[number] += share * found.score
            start[number] += share * found.start
    if method == SALIENCY:
        sums = [each.sqrt() for each in sums]
    return [OfSentence(*each) for each in zip(sums, score.tolist(), start.tolist(), strict=True)]


class _OfPiece(NamedTuple):
    words: Tensor
    """The word of each token that has one: (W,)."""
    values: Tensor
    """(W,), float64."""
    score: float
    start: float


def _of_pieces(
    model: nn.Module, backbone: Backbone, sentences: Sentences, questions: Sequence[Question], method: str
) -> Iterator[_OfPiece]:
    batch, first = encode(backbone, sentences, [question.piece for question in questions])
    word = words_of(backbone, batch["input_ids"], first)
    answer = torch.tensor([question.answer for question in questions])
    asked = torch.tensor([-2 if question.word is None else question.word for question in questions])
    place = (first == asked[:, None]).long().argmax(1)  # 0, where no token begins that word
    if method == ATTENTION:
        values = attended(model, batch)[torch.arange(len(place)), place].double()
        with torch.no_grad():
            scores = _at(logits_of(model, batch), place).gather(1, answer[:, None])[:, 0].double()
        start = torch.full_like(scores, torch.nan)
    else:
        values, scores, start = _by_gradients(model, backbone, batch, word, place, answer, method)
    for number, row in enumerate(word):
        has = row >= 0
        yield _OfPiece(row[has], values[number][has], float(scores[number]), float(start[number]))


def words_of(backbone: Backbone, tokens: Tensor, first: Tensor) -> Tensor:
    """Return the word that each token is of, -1 for what stands around words: all (B, L).

    `first` are the words that tokens begin, else -1.
    """
    tokenizer = backbone.tokenizer
    around = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    around.append(tokenizer.pad_token_id)
    outside = torch.isin(tokens, torch.tensor([each for each in around if each is not None]))
    return first.cummax(1).values.masked_fill(outside, -1)


def _by_gradients(
    model: nn.Module,
    backbone: Backbone,
    batch: Batch,
    word: Tensor,
    place: Tensor,
    answer: Tensor,
    method: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a value for each token (B, L), the scores and those of the baseline (B,), all float64."""
    table: nn.Embedding = cast(Any, model).get_input_embeddings()
    blank = batch["input_ids"].masked_fill(word >= 0, int(backbone.tokenizer.pad_token_id))
    with torch.no_grad():
        embedded, padding = table(batch["input_ids"]), table(blank)  # (B, L, H)

    def scores(embedding: Tensor, mask: Tensor, place: Tensor) -> Tensor:
        return _at(model(inputs_embeds=embedding, attention_mask=mask).logits, place)

    found = attribute(scores, embedded, method, answer, padding, (batch["attention_mask"], place))
    values = found.values.double()
    each = values.sum(2) if method == INTEGRATED_GRADIENTS else values.square().sum(2).sqrt()
    return each, found.score, found.start


def _at(logits: Tensor, place: Tensor) -> Tensor:
    """Return the scores of the answers at a token: (B, L, K) -> (B, K); those of a text as they are."""
    return logits if logits.ndim == 2 else logits[torch.arange(len(logits)), place]


def attended(model: nn.Module, batch: Batch) -> Tensor:
    """Return what each token is made of, by what all layers attend to: (B, L, L), rows that add up to 1.

    Raises UserError for a network that does not tell its attention.
    """
    cast(Any, model).set_attn_implementation("eager")  # the others do not say what they attend to
    with torch.no_grad():
        told = model(**batch, output_attentions=True).attentions
    if not told or any(each is None for each in told):
        raise UserError(
            f"the network {type(model).__name__} does not tell what it attends to: ask for --method "
            f"{INTEGRATED_GRADIENTS} or {SALIENCY}"
        )
    return rollout(told)


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """Follow attention (B, heads, L, L) through the layers, each half of which passes by: -> (B, L, L).

    Abnar & Zuidema 2020, eq. 1; the heads are taken in the mean.
    """
    whole = torch.eye(layers[0].shape[-1])
    for layer in layers:
        whole = (layer.mean(1) + torch.eye(layer.shape[-1])) / 2 @ whole
    return whole
