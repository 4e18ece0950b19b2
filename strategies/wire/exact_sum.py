"""A weighted sum that is one and the same however its terms are ordered and grouped.

Clients that live on one node are summed there, so what a strategy sees must not depend on who shares a
node. Each element is carried as an unevaluated sum of two float64, `high + low`, with |low| at most half
a unit in the last place of `high` (Dekker 1971, "A floating-point technique for extending the available
precision"; TwoSum is Knuth, TAOCP vol. 2, 4.2.2). Blocks of elements whose low parts are all zero have none.
Where an element's terms span more than 106 bits, what the pair cannot hold is kept beside it, number by
number: so the sum is exact whatever its terms are. It is rounded once, by `mean`, and so is the sum of the
weights (math.fsum).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.wire.stack_sum import exact_terms

Floats = NDArray[np.float64]

# Elements that are added at once, so that the passes over them stay in the processor's cache.
BLOCK = 16_384
ROWS = 6
"""Of numbers that a block is added with."""


class ExactSum:
    """Sum of weighted arrays, by name."""

    def __init__(self) -> None:
        self.weights: list[float] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of the arrays, in the order in which they lie in the sum; empty before the first are added."""
        self.high: Floats = np.empty(0)
        """The high parts of all arrays, one behind the other; read-only where they are another sum's."""
        self.low: dict[int, Floats] = {}
        """Where a block begins -> the low parts of its elements; without those blocks that have none."""
        self.rest: Floats = np.empty((2, 0))
        """What the pairs cannot hold, (2, R): places in them, and numbers to add there."""
        self._block: Floats = np.empty((ROWS, 0))
        """Memory to compute in, kept, as to get it anew takes as long as a small sum."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process is told: all but the memory to compute in, and few large arrays."""
        starts, low = self.low_parts()
        return {**vars(self), "_block": np.empty((ROWS, 0)), "low": (starts, low)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` gave."""
        vars(self).update(state)
        self.set_low_parts(*state["low"])

    @property
    def weight(self) -> float:
        """The sum of the weights, rounded once."""
        return math.fsum(self.weights)

    def add(self, arrays: Mapping[str, NDArray[np.generic]], weight: float) -> None:
        """Add `weight` times each array; raise ValueError where a call brings other names or shapes."""
        self._expect({name: array.shape for name, array in arrays.items()})
        first = not self.weights
        self.weights.append(weight)
        held, block, start = self._to_be_written(), self._memory(), 0
        for size in _fill(block[-1], (arrays[name] for name in self.shapes), weight):
            if first:
                self.high[start : start + size] = block[-1, :size]
            else:
                self._add(start, block[-1, :size], held, block)
            start += size

    def add_all(self, arrays: Mapping[str, NDArray[np.generic]], weights: Sequence[float]) -> None:
        """Add each array's rows (R, ...), times their weights (R,)."""
        found = {
            name: exact_terms(array.reshape(len(weights), -1), weights) for name, array in arrays.items()
        }
        terms = {name: parts for name, parts in found.items() if parts is not None}
        if len(weights) < 2 or len(terms) < len(arrays):
            for row, weight in enumerate(weights):
                self.add({name: array[row] for name, array in arrays.items()}, weight)
            return
        self._expect({name: array.shape[1:] for name, array in arrays.items()})
        first = not self.weights
        self.weights += weights
        held, block = self._to_be_written(), self._memory()
        for place in range(max(map(len, terms.values()))):
            parts = [terms[name] for name in self.shapes]
            flat = np.concatenate([part[place] if place < len(part) else 0.0 * part[0] for part in parts])
            if first and place == 0:
                self.high[:] = flat
                continue
            for start in range(0, flat.size, BLOCK):
                self._add(start, flat[start : start + BLOCK], held if place == 0 else self.high, block)

    def merge(self, other: "ExactSum") -> None:
        """Add another sum to this one, which nobody may add to afterwards: its memory may be this one's."""
        if not other.weights:
            return
        if not self.weights:  # of one term not even the sign of a zero is lost
            self.weights, self.shapes, self.rest = [*other.weights], dict(other.shapes), other.rest
            self.high, self.low = other.high.view(), dict(other.low)
            self.high.flags.writeable = False
            return
        self._expect(other.shapes)
        other = other.in_order_of(self.shapes)
        self.weights += other.weights
        held, block = self._to_be_written(), self._memory()
        for start in range(0, held.size, BLOCK):
            self._add(start, other.high[start : start + BLOCK], held, block)
            if start in other.low:
                self._add_slowly(start, other.low[start], block)
        self.rest = np.concatenate([self.rest, other.rest], axis=1)

    def mean(self, like: Mapping[str, np.dtype[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """Return the sum divided by the sum of the weights, each rounded to float64 before and after.

        `like` are the arrays' types; then it is rounded once more, to these. It is float64 unless given.
        """
        total, weight, block = self._rounded(), self.weight, self._memory()
        means = {name: np.empty(shape, (like or {}).get(name)) for name, shape in self.shapes.items()}
        start = 0
        for mean in means.values():
            target = torch.from_numpy(mean.reshape(-1))
            for begin in range(0, mean.size, BLOCK):
                end = min(begin + BLOCK, mean.size)
                part = block[0, : end - begin]
                held = total[start + begin : start + end]
                # Of several zeros no sign is left, whichever way they were added.
                np.add(held, 0.0 if len(self.weights) > 1 else -0.0, out=part)
                np.divide(part, weight, out=part)
                target[begin:end].copy_(torch.from_numpy(part))  # which rounds as the model's types do
            start += mean.size
        return means

    def by_name(self, flat: Floats) -> dict[str, Floats]:
        """Return views of numbers that lie as the sums do, in the shapes of the arrays."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        parts = np.split(flat, ends[:-1])
        return {
            name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def low_parts(self) -> tuple[NDArray[np.int64], Floats]:
        """Return where the blocks with low parts begin, and these parts one behind the other."""
        starts = sorted(self.low)
        parts = [self.low[start] for start in starts]
        return np.array(starts, np.int64), np.concatenate(parts) if parts else np.empty(0)

    def set_low_parts(self, starts: NDArray[np.int64], low: Floats) -> None:
        """Take what `low_parts` gave; raise ValueError for what does not fit these high parts."""
        sizes = np.minimum(BLOCK, self.high.size - starts)
        fits = (starts % BLOCK == 0) & (starts >= 0) & (sizes > 0)
        if not fits.all() or len(set(starts.tolist())) < starts.size or low.shape != (int(sizes.sum()),):
            raise ValueError("its sum has low parts outside of it")
        parts = np.split(low, np.cumsum(sizes)[:-1])
        self.low = dict(zip(starts.tolist(), parts, strict=False))

    def _expect(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make room for the first arrays; compare later ones with them."""
        if not self.weights:
            self.shapes = dict(shapes)
            self.high = np.empty(sum(math.prod(shape) for shape in shapes.values()))
        elif self.shapes != shapes:
            raise ValueError(f"arrays {dict(shapes)} cannot be added to {self.shapes}")

    def _to_be_written(self) -> Floats:
        """Return the high parts as they are, and see to it that new ones can be written."""
        held = self.high
        if not held.flags.writeable:
            self.high = np.empty_like(held)
        return held

    def _memory(self) -> Floats:
        """Return rows of the elements that are added at once."""
        size = min(self.high.size, BLOCK)
        if self._block.shape[1] != size:
            self._block = np.empty((ROWS, size))
        return self._block

    def in_order_of(self, names: Iterable[str]) -> "ExactSum":
        """Return the same sum, with the arrays in this order."""
        order = list(names)
        if list(self.shapes) == order:
            return self
        places = self.by_name(np.arange(self.high.size, dtype=np.float64))  # of each number as they lie here
        taken = np.concatenate([places[name].reshape(-1) for name in order]).astype(np.int64)
        moved, low = ExactSum(), np.zeros(self.high.size)
        for start, part in self.low.items():
            low[start : start + part.size] = part
        low = low[taken]
        moved.weights, moved.shapes = self.weights, {name: self.shapes[name] for name in order}
        moved.high = self.high[taken]
        blocks = {start: low[start : start + BLOCK] for start in range(0, low.size, BLOCK)}
        moved.low = {start: part for start, part in blocks.items() if part.any()}
        moved.rest = np.stack([np.argsort(taken)[self.rest[0].astype(np.int64)], self.rest[1]])
        return moved

    def _add(self, start: int, term: Floats, held: Floats, block: Floats) -> None:
        """Add a term to the block from `start` on, whose high parts lie in `held` so far.

        The rows of `block` are memory to compute in. Where float64 holds all sums of the block exactly, as it
        does for nearly all blocks of float32 weights times counts, there is no low part to compute: a sum is
        exact where each summand taken from it leaves the other one.
        """
        high, before = self.high[start : start + term.size], held[start : start + term.size]
        if start not in self.low:
            total, left = (row[: term.size] for row in block[:2])
            np.add(before, term, out=total)
            np.subtract(total, before, out=left)
            if (left == term).all():
                np.subtract(total, term, out=left)
                if (left == before).all():
                    high[:] = total
                    return
        if held is not self.high:
            high[:] = before
        self._add_slowly(start, term, block)

    def _add_slowly(self, start: int, term: Floats, block: Floats) -> None:
        """Add a term to the pairs from `start` on; the rows of `block` are memory to compute in."""
        high = self.high[start : start + term.size]
        total, error, rest, spare, low = (row[: term.size] for row in block[:5])
        low[:] = self.low.get(start, 0.0)
        _two_sum(high, term, total, error, spare)
        tail = high
        _two_sum(error, low, tail, rest, spare)
        # |total| >= |tail|, so one subtraction finds the rounding error (Dekker's Fast2Sum).
        np.add(total, tail, out=spare)
        np.subtract(spare, total, out=low)
        np.subtract(tail, low, out=low)
        high[:] = spare
        self.low.pop(start, None)
        if low.any():
            self.low[start] = low.copy()
        if rest.any():
            places = np.flatnonzero(rest)
            self.rest = np.concatenate([self.rest, [start + places, rest[places]]], axis=1)

    def _rounded(self) -> Floats:
        """Return the float64 that is nearest to each sum."""
        if not self.rest.size:
            return self.high
        order = np.argsort(self.rest[0], kind="stable")
        total, places = self.high.copy(), self.rest[0, order].astype(np.int64)
        found, begins = np.unique(places, return_index=True)
        for place, numbers in zip(found, np.split(self.rest[1, order], begins[1:]), strict=True):
            start = place - place % BLOCK
            low = self.low[start][place - start] if start in self.low else 0.0
            total[place] = math.fsum([total[place], low, *numbers])
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
