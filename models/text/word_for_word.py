"""The simplest translation there is: each word by itself, in the order of the source."""

from collections import Counter
from collections.abc import Sequence


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
