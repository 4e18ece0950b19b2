"""Whether two models look at the same: how alike they rank the parts of the same examples."""

import math
from collections.abc import Iterable

from scipy.stats import spearmanr
from torch import Tensor

from models.explain.explanation import Explanation
from server.run_schema import Alike

TOP = 0.1
"""Part of an example's parts that are its most important ones."""


def alike(of: str, one: Explanation, other: Explanation) -> Alike:
    """Compare what two models attribute to the parts of the same examples, asked about the same answers."""
    pairs = [(a.values, b.values) for a, b in zip(one.examples, other.examples, strict=True)]
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    return Alike(
        of=of,
        rank_correlation=_known(rank_correlation(*pair) for pair in pairs),
        shared_top=_known(shared_top(*pair) for pair in pairs),
        chance=_known(chance(*pair) for pair in pairs),
        other_examples=_known(
            rank_correlation(here, there) if here.shape == there.shape and len(pairs) > 1 else math.nan
            for here, there in zip(mine, theirs[1:] + theirs[:1], strict=True)
        ),
    )


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Return Spearman's correlation over the parts that are not 0 for both; nan where one ranks nothing.

    What is 0 for both, such as the black around a digit, would be counted as agreement about nothing.
    """
    looked = (one != 0) | (other != 0)
    a, b = one[looked], other[looked]
    if len(a) < 2 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return math.nan
    return float(spearmanr(a.numpy(), b.numpy()).statistic)


def shared_top(one: Tensor, other: Tensor) -> float:
    """Return how much of the tenth with the largest values, of either sign, both have in common.

    The tenth is of the parts that are not 0 for both, one of them at least; nan where there are none.
    """
    looked = (one != 0) | (other != 0)
    a, b = one[looked].abs(), other[looked].abs()
    if not len(a):
        return math.nan
    size = _size_of_top(len(a))
    tops = [set(each.argsort(descending=True, stable=True)[:size].tolist()) for each in (a, b)]
    return len(tops[0] & tops[1]) / size


def chance(one: Tensor, other: Tensor) -> float:
    """Return how much of it they would have in common by chance: k / P of the first k of P parts."""
    count = int(((one != 0) | (other != 0)).sum())
    return _size_of_top(count) / count if count else math.nan


def _size_of_top(count: int) -> int:
    return max(1, round(TOP * count))


def _known(numbers: Iterable[float]) -> list[float | None]:
    return [None if math.isnan(each) else each for each in numbers]
