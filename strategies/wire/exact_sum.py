"""A weighted sum that is one and the same however its terms are ordered and grouped.

Clients that live on one node are summed there, so what a strategy sees must not depend on who shares a
node. Each element is carried as an unevaluated sum of two float64, `high + low`, with |low| at most half
a unit in the last place of `high` (Dekker 1971, "A floating-point technique for extending the available
precision"; TwoSum is Knuth, TAOCP vol. 2, 4.2.2). A float32 weight times a count below 2**29 is exact in
float64, and a sum of such terms is exact in the pair as long as it spans no more than 106 bits; only then
is it rounded, once, by `mean`.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Elements that are added at once, so that TwoSum's six passes stay in the processor's cache.
BLOCK = 16_384


class ExactSum:
    """Sum of weighted arrays, by name."""

    def __init__(self) -> None:
        self.weight = 0.0
        self.high: dict[str, Floats] = {}
        self.low: dict[str, Floats] = {}

    def add(self, arrays: Mapping[str, NDArray[np.generic]], weight: float) -> None:
        """Add `weight` times each array; all calls must bring the same names and shapes."""
        self.weight += weight
        for name, array in arrays.items():
            # NumPy turns an array without axes into a number, which cannot be added to in place.
            self._add(name, np.asarray(np.multiply(array, weight, dtype=np.float64)))

    def merge(self, other: "ExactSum") -> None:
        """Add another sum to this one."""
        self.weight += other.weight
        for name, high in other.high.items():
            self._add(name, high)
            self._add(name, other.low[name])

    def mean(self) -> dict[str, Floats]:
        """Return the sum divided by the sum of the weights, rounded once to float64."""
        return {name: np.asarray(high / self.weight) for name, high in self.high.items()}

    def _add(self, name: str, term: Floats) -> None:
        if name not in self.high:
            self.high[name] = term.copy()
            self.low[name] = np.zeros_like(term)
            return
        high, low, flat = self.high[name].reshape(-1), self.low[name].reshape(-1), term.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            block = slice(start, start + BLOCK)
            total, error = _two_sum(high[block], flat[block])
            error += low[block]
            high[block] = total + error
            low[block] = error - (high[block] - total)


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return fl(a + b) and its rounding error; the two add up to a + b exactly."""
    total = a + b
    shifted = total - a
    return total, (a - (total - shifted)) + (b - shifted)
