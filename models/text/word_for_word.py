"""The simplest translation there is: each word by itself, in the order of the source."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from heapq import nsmallest

import torch
from torch import Tensor

MOST_PAIRS = 10_000
"""Pairs that words are learned from: what pairs of words take grows with them, in each process."""


def sample(source: Tensor, target: Tensor) -> Tensor:
    """Return the rows of at most MOST_PAIRS pairs, UTF-8 with zeros behind (N, S) and (N, T).

    They are those of the smallest hashes, so that neither their places nor the machine decides.
    """
    if len(source) <= MOST_PAIRS:
        return torch.arange(len(source))
    texts = (
        b"\0".join(row.tobytes().rstrip(b"\0") for row in pair)
        for pair in zip(source.numpy(), target.numpy(), strict=True)
    )
    hashes = ((hashlib.sha256(text).digest(), row) for row, text in enumerate(texts))
    return torch.tensor(sorted(row for _, row in nsmallest(MOST_PAIRS, hashes)))


def learn_words(sources: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Return source word -> the target word that stands beside it most exclusively in pairs of texts.

    By Dice's coefficient, 2 n(s, t) / (n(s) + n(t)) of the numbers of pairs that hold them; of words that are
    alike in that, the first of the alphabet.
    """
    alone: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    together: Counter[tuple[str, str]] = Counter()
    for pair in zip(sources, targets, strict=True):
        words, translated = (set(text.split()) for text in pair)
        alone[0].update(words)
        alone[1].update(translated)
        together.update((word, other) for word in words for other in translated)
    best: dict[str, tuple[float, str]] = {}
    for (word, other), count in together.items():
        dice = 2 * count / (alone[0][word] + alone[1][other])
        found = best.get(word)
        if found is None or (-dice, other) < (-found[0], found[1]):
            best[word] = (dice, other)
    return {word: other for word, (_, other) in best.items()}


def translate_words(text: str, dictionary: dict[str, str]) -> str:
    """Return a text with each word translated; one that is unknown stays as it is."""
    return " ".join(dictionary.get(word, word) for word in text.split())
