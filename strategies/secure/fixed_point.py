"""Sums as whole numbers modulo 2^128, to which masks can be added and taken off again without a trace.

A number x is the nearest whole number to x * 2^80, in two's complement. So float32 numbers that are 0 or at
least 2^-57 (7e-18) in size are held exactly, and so are their sums: the mean of a masked sum is that of the
plain one, bit for bit. Of smaller ones at most 2^-81 of a node's sum is lost.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from strategies.secure.modular import Limbs, add
from strategies.wire.exact_sum import ExactSum

Floats = NDArray[np.float64]

FRACTION = 80
"""Bits of a number after the point."""
LARGEST = 2.0**46
"""All sums together are smaller, so that they stay below half of 2^128."""


def limbs_of(total: ExactSum, most: float = LARGEST) -> Limbs:
    """Return a sum as whole numbers; raise ValueError for one that reaches `most`."""
    if not np.abs(total.high).max(initial=0.0) < most:
        largest = float(np.abs(total.high).max())
        raise ValueError(
            f"a sum of weights times examples is {largest:g}, and secure aggregation adds up what stays "
            f"below {most:g}"
        )
    limbs = _encoded(total.high)
    for start, part in total.low.items():
        add(limbs[:, start : start + part.size], _encoded(part))
    places, numbers = total.rest[0].astype(np.int64), _encoded(total.rest[1])
    left = np.arange(places.size)
    while left.size:  # several numbers may belong to one place
        _, first = np.unique(places[left], return_index=True)
        once = left[first]
        held = limbs[:, places[once]]
        add(held, numbers[:, once])
        limbs[:, places[once]] = held
        left = np.delete(left, first)
    return limbs


def total_of(limbs: Limbs, shapes: Mapping[str, tuple[int, ...]], weight: float) -> ExactSum:
    """Return the sum that whole numbers stand for, as of several terms whose weights add up to `weight`."""
    total, named = ExactSum(), ExactSum()
    named.shapes = dict(shapes)
    for digit in _decoded(limbs):
        total.add(named.by_name(digit), 1.0)
    total.weights = [weight, 0.0]
    return total


def size_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many numbers arrays of these shapes have."""
    return sum(math.prod(shape) for shape in shapes.values())


def _encoded(numbers: Floats) -> Limbs:
    """(N,) below 2^47 -> the nearest whole numbers to them times 2^FRACTION."""
    limbs = np.empty((2, numbers.size), np.uint64)
    scaled = np.ldexp(np.abs(numbers), FRACTION - 64)  # exact, as is the part after its point
    whole = np.floor(scaled)
    limbs[0] = np.rint(np.ldexp(scaled - whole, 64))
    limbs[1] = whole
    _negate(limbs, numbers < 0)
    return limbs


def _decoded(limbs: Limbs) -> list[Floats]:
    """Return digits of 32 bits, largest first, that add up to the numbers; each is exact."""
    limbs = limbs.copy()
    negative = limbs[1] >> np.uint64(63) == 1
    _negate(limbs, negative)
    sign = np.where(negative, -1.0, 1.0)
    low, high, bits, lower = limbs[0], limbs[1], np.uint64(32), np.uint64(2**32 - 1)
    digits = [high >> bits, high & lower, low >> bits, low & lower]
    return [
        np.ldexp(digit.astype(np.float64), place - FRACTION) * sign
        for digit, place in zip(digits, (96, 64, 32, 0), strict=True)
    ]


def _negate(limbs: Limbs, where: NDArray[np.bool_]) -> None:
    """Take these numbers from 2^128."""
    low, high = limbs
    np.invert(low, out=low, where=where)
    np.invert(high, out=high, where=where)
    np.add(low, np.uint64(1), out=low, where=where)
    np.add(high, (low == 0).astype(np.uint64), out=high, where=where)
