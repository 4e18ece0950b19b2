"""Arithmetic modulo 2^128, in arrays of 64 bits. It needs no torch, which takes seconds to import."""

import numpy as np
from numpy.typing import NDArray

Limbs = NDArray[np.uint64]
"""(2, N): the lower and the upper 64 bits of N numbers modulo 2^128."""


def add(held: Limbs, more: Limbs) -> None:
    """Add `more` to what is held, modulo 2^128."""
    low, high = held
    low += more[0]
    high += more[1]
    high += low < more[0]  # the carry


def subtract(held: Limbs, less: Limbs) -> None:
    """Take `less` from what is held, modulo 2^128."""
    low, high = held
    high -= less[1]
    high -= low < less[0]
    low -= less[0]
