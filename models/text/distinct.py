"""How varied texts are: distinct-n (Li et al. 2016, arXiv:1510.03055, section 5.2)."""

from collections.abc import Iterable, Sequence


def distinct(texts: Iterable[Sequence[str]], n: int) -> tuple[int, int]:
    """Return how many different n-grams of words there are in texts, and how many there are."""
    grams = [tuple(words[place : place + n]) for words in texts for place in range(len(words) - n + 1)]
    return len(set(grams)), len(grams)
