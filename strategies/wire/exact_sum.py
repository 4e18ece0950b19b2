"""A weighted sum that is one and the same however its terms are ordered and grouped.

Clients that live on one node are summed there, so what a strategy sees must not depend on who shares a
node. Each element is carried as an unevaluated sum of two float64, `high + low`, with |low| at most half
a unit in the last place of `high` (Dekker 1971, "A floating-point technique for extending the available
precision"; TwoSum is Knuth, TAOCP vol. 2, 4.2.2). Where an element's terms span more than 106 bits, what the
pair cannot hold is kept beside it, number by number: so the sum is exact whatever its terms are. It is
rounded once, by `mean`, and so is the sum of the weights (math.fsum).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Elements that are added at once, so that the passes over them stay in the processor's cache.
BLOCK = 16_384


@dataclass
class Element:
    """The sum of one array."""

    high: Floats
    low: Floats
    rest: Floats
    """What the pairs could not hold, (2, R): places in the flattened array, and numbers to add there."""


class ExactSum:
    """Sum of weighted arrays, by name."""

    def __init__(self) -> None:
        self.weights: list[float] = []
        self.elements: dict[str, Element] = {}
        self._scratch = np.empty((4, BLOCK))

    @property
    def weight(self) -> float:
        """The sum of the weights, rounded once."""
        return math.fsum(self.weights)

    def add(self, arrays: Mapping[str, NDArray[np.generic]], weight: float) -> None:
        """Add `weight` times each array; all calls must bring the same names and shapes."""
        self.weights.append(weight)
        for name, array in arrays.items():
            # NumPy turns an array without axes into a number, which cannot be added to in place.
            self._add(name, np.asarray(np.multiply(array, weight, dtype=np.float64)))

    def merge(self, other: "ExactSum") -> None:
        """Add another sum to this one."""
        self.weights += other.weights
        for name, sums in other.elements.items():
            if name not in self.elements:  # of one term, nothing is lost, not even the sign of a zero
                self.elements[name] = Element(sums.high.copy(), sums.low.copy(), sums.rest)
                continue
            self._add(name, sums.high)
            self._add(name, sums.low)
            mine = self.elements[name]
            mine.rest = np.concatenate([mine.rest, sums.rest], axis=1)

    def mean(self) -> dict[str, Floats]:
        """Return the sum divided by the sum of the weights, each rounded to float64 before and after."""
        return {name: np.asarray(_rounded(sums) / self.weight) for name, sums in self.elements.items()}

    def _add(self, name: str, term: Floats) -> None:
        if name not in self.elements:
            self.elements[name] = Element(term.copy(), np.zeros_like(term), np.empty((2, 0)))
            return
        sums = self.elements[name]
        high, low, flat = sums.high.reshape(-1), sums.low.reshape(-1), term.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            block = slice(start, start + BLOCK)
            rest = self._add_block(high[block], low[block], flat[block])
            if rest.any():
                places = np.flatnonzero(rest)
                sums.rest = np.concatenate([sums.rest, [start + places, rest[places]]], axis=1)

    def _add_block(self, high: Floats, low: Floats, term: Floats) -> Floats:
        """Add a term to the pairs in place; return what they cannot hold, in memory that is used again."""
        total, error, rest, spare = (row[: term.size] for row in self._scratch)
        _two_sum(high, term, total, error, spare)
        tail = high
        _two_sum(error, low, tail, rest, spare)
        # |total| >= |tail|, so one subtraction finds the rounding error (Dekker's Fast2Sum).
        np.add(total, tail, out=spare)
        np.subtract(spare, total, out=low)
        np.subtract(tail, low, out=low)
        high[:] = spare
        return rest


def _two_sum(a: Floats, b: Floats, total: Floats, error: Floats, spare: Floats) -> None:
    """Write fl(a + b) and its rounding error; the two add up to a + b exactly."""
    np.add(a, b, out=total)
    np.subtract(total, a, out=spare)
    np.subtract(b, spare, out=error)
    np.subtract(total, spare, out=spare)
    np.subtract(a, spare, out=spare)
    np.add(spare, error, out=error)


def _rounded(sums: Element) -> Floats:
    """Return the float64 that is nearest to each sum."""
    places = sums.rest[0].astype(np.int64)
    if not places.size:
        return sums.high
    total, low = sums.high.reshape(-1).copy(), sums.low.reshape(-1)
    for place in np.unique(places):
        numbers = sums.rest[1, places == place]
        total[place] = math.fsum([total[place], low[place], *numbers])
    return total.reshape(sums.high.shape)
