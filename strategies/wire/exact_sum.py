"""A weighted sum that is one and the same however its terms are ordered and grouped.

Clients that live on one node are summed there, so what a strategy sees must not depend on who shares a
node. Each element is carried as an unevaluated sum of two float64, `high + low`, with |low| at most half
a unit in the last place of `high` (Dekker 1971, "A floating-point technique for extending the available
precision"; TwoSum is Knuth, TAOCP vol. 2, 4.2.2). Where an element's terms span more than 106 bits, what the
pair cannot hold is kept beside it, number by number: so the sum is exact whatever its terms are. It is
rounded once, by `mean`, and so is the sum of the weights (math.fsum).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.wire.stack_sum import exact_terms

Floats = NDArray[np.float64]

# Elements that are added at once, so that the passes over them stay in the processor's cache.
BLOCK = 16_384


class ExactSum:
    """Sum of weighted arrays, by name."""

    def __init__(self) -> None:
        self.weights: list[float] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of the arrays, in the order in which they lie in the sums; empty before the first are added."""
        self.high: Floats = np.empty(0)
        self.low: Floats = np.empty(0)
        """The pairs, of all arrays one behind the other."""
        self.rest: Floats = np.empty((2, 0))
        """What the pairs cannot hold, (2, R): places in them, and numbers to add there."""
        self._block: Floats = np.empty((5, 0))
        """Memory to compute in, kept, as to get it anew takes as long as a small sum."""

    @property
    def weight(self) -> float:
        """The sum of the weights, rounded once."""
        return math.fsum(self.weights)

    def add(self, arrays: Mapping[str, NDArray[np.generic]], weight: float) -> None:
        """Add `weight` times each array; raise ValueError where a call brings other names or shapes."""
        self._expect({name: array.shape for name, array in arrays.items()})
        self.weights.append(weight)
        block, start = self._memory(), 0
        for size in _fill(block[4], (arrays[name] for name in self.shapes), weight):
            self._add(start, block[4, :size], block)
            start += size

    def add_all(self, arrays: Mapping[str, NDArray[np.generic]], weights: Sequence[float]) -> None:
        """Add each array's rows (R, ...), times their weights (R,)."""
        terms = {
            name: exact_terms(array.reshape(len(weights), -1), weights) for name, array in arrays.items()
        }
        if len(weights) < 2 or None in terms.values():
            for row, weight in enumerate(weights):
                self.add({name: array[row] for name, array in arrays.items()}, weight)
            return
        self._expect({name: array.shape[1:] for name, array in arrays.items()})
        self.weights += weights
        block, first = self._memory(), 0
        for name, shape in self.shapes.items():
            for term in terms[name] or ():
                for start in range(0, term.size, BLOCK):
                    self._add(first + start, term[start : start + BLOCK], block)
            first += math.prod(shape)

    def merge(self, other: "ExactSum") -> None:
        """Add another sum to this one."""
        if not other.weights:
            return
        self._expect(other.shapes)
        other = other._in_order_of(self.shapes)
        self.weights += other.weights
        if len(self.weights) == len(other.weights):  # of one term not even the sign of a zero is lost
            self.high, self.low, self.rest = other.high.copy(), other.low.copy(), other.rest
            return
        block = self._memory()
        for start in range(0, self.high.size, BLOCK):
            for part in (other.high, other.low):
                self._add(start, part[start : start + BLOCK], block)
        self.rest = np.concatenate([self.rest, other.rest], axis=1)

    def mean(self) -> dict[str, Floats]:
        """Return the sum divided by the sum of the weights, each rounded to float64 before and after."""
        return self.by_name(self._rounded() / self.weight)

    def by_name(self, flat: Floats) -> dict[str, Floats]:
        """Return views of numbers that lie as the sums do, in the shapes of the arrays."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        parts = np.split(flat, ends[:-1])
        return {
            name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def _expect(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make room for the first arrays; compare later ones with them."""
        if not self.weights:
            self.shapes = dict(shapes)
            size = sum(math.prod(shape) for shape in shapes.values())
            self.high, self.low = np.zeros(size), np.zeros(size)
        elif self.shapes != shapes:
            raise ValueError(f"arrays {dict(shapes)} cannot be added to {self.shapes}")

    def _memory(self) -> Floats:
        """Return five rows of the elements that are added at once."""
        size = min(self.high.size, BLOCK)
        if self._block.shape[1] != size:
            self._block = np.empty((5, size))
        return self._block

    def _in_order_of(self, names: Iterable[str]) -> "ExactSum":
        """Return the same sum, with the arrays in this order."""
        order = list(names)
        if list(self.shapes) == order:
            return self
        places = self.by_name(np.arange(self.high.size, dtype=np.float64))  # of each number as they lie here
        taken = np.concatenate([places[name].reshape(-1) for name in order]).astype(np.int64)
        moved = ExactSum()
        moved.weights, moved.shapes = self.weights, {name: self.shapes[name] for name in order}
        moved.high, moved.low = self.high[taken], self.low[taken]
        moved.rest = np.stack([np.argsort(taken)[self.rest[0].astype(np.int64)], self.rest[1]])
        return moved

    def _add(self, start: int, term: Floats, block: Floats) -> None:
        """Add a term to the pairs from `start` on; the rows of `block` are memory to compute in."""
        high, low = (part[start : start + term.size] for part in (self.high, self.low))
        if len(self.weights) == 1:
            high[:] = term
            return
        total, error, rest, spare = (row[: term.size] for row in block[:4])
        _two_sum(high, term, total, error, spare)
        tail = high
        _two_sum(error, low, tail, rest, spare)
        # |total| >= |tail|, so one subtraction finds the rounding error (Dekker's Fast2Sum).
        np.add(total, tail, out=spare)
        np.subtract(spare, total, out=low)
        np.subtract(tail, low, out=low)
        high[:] = spare
        if rest.any():
            places = np.flatnonzero(rest)
            self.rest = np.concatenate([self.rest, [start + places, rest[places]]], axis=1)

    def _rounded(self) -> Floats:
        """Return the float64 that is nearest to each sum."""
        if not self.rest.size:
            return self.high
        total, places = self.high.copy(), self.rest[0].astype(np.int64)
        for place in np.unique(places):
            total[place] = math.fsum([total[place], self.low[place], *self.rest[1, places == place]])
        return total


def _fill(block: Floats, arrays: Iterable[NDArray[np.generic]], weight: float) -> Iterator[int]:
    """Write `weight` times the arrays into `block`, one behind the other; yield how many, whenever full."""
    size = 0
    for array in arrays:
        flat, done = array.reshape(-1), 0
        while done < flat.size:
            step = min(block.size - size, flat.size - done)
            np.multiply(flat[done : done + step], weight, out=block[size : size + step], dtype=np.float64)
            done, size = done + step, size + step
            if size == block.size:
                yield size
                size = 0
    if size:
        yield size


def _two_sum(a: Floats, b: Floats, total: Floats, error: Floats, spare: Floats) -> None:
    """Write fl(a + b) and its rounding error; the two add up to a + b exactly."""
    np.add(a, b, out=total)
    np.subtract(total, a, out=spare)
    np.subtract(b, spare, out=error)
    np.subtract(total, spare, out=spare)
    np.subtract(a, spare, out=spare)
    np.add(spare, error, out=error)
