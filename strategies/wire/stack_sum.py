"""Weighted sums over the first axis of an array that need no rounding, where float64 has room for them.

Float32 numbers of about one size, times whole numbers, add up in float64 without any rounding, and so in any
order. What is much smaller than the largest of them is added up apart.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROOM = 30
"""Bits of float64 (53) that the bits of a float32 after its first one (23) leave."""
BLOCK = 8192
"""Columns that are added at once, so that they stay in the processor's cache."""


def exact_terms(stacked: NDArray[np.generic], weights: Sequence[float]) -> list[Floats] | None:
    """(R, N), weights (R,) -> one or two arrays (N,) that add up to the weighted sum; None where none do.

    So it is where the numbers are no float32, the weights not whole, or the numbers too far apart.
    """
    if stacked.dtype != np.float32 or not all(float(weight).is_integer() for weight in weights):
        return None
    largest = float(max(stacked.max(initial=0.0), -stacked.min(initial=0.0)))
    bound = sum(weights) * largest
    if bound == 0 or not math.isfinite(bound):
        return [np.zeros(stacked.shape[1])] if bound == 0 else None
    # All that is at least `smallest` is a multiple of smallest / 2**23, and fewer than 2**53 of these add up.
    smallest = 2.0 ** (math.frexp(bound)[1] - ROOM)
    least = 2.0 ** (math.frexp(sum(weights) * smallest)[1] - ROOM)  # the same, of those that are smaller
    factors, total, rest = np.array(weights), np.empty(stacked.shape[1]), np.zeros(stacked.shape[1])
    for start in range(0, stacked.shape[1], BLOCK):
        part = stacked[:, start : start + BLOCK]
        small = np.abs(part) < smallest
        exact = part.astype(np.float64)
        if small.any():
            rows, columns = np.nonzero(small & (part != 0))
            left = exact[rows, columns]
            if np.abs(left).min(initial=math.inf) < least:
                return None
            exact[rows, columns] = 0.0
            rest[start : start + BLOCK] = np.bincount(columns, factors[rows] * left, part.shape[1])
        np.einsum("r,rn->n", factors, exact, out=total[start : start + BLOCK])
    return [total, rest] if rest.any() else [total]
