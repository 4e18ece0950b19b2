"""Arrays that are filled part by part: in memory, or where they are large, in a file that is mapped."""

import math
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.data.cache import cache_folder

IN_MEMORY = 2**30
"""Bytes of the largest array that is not mapped."""
_COPIED = 2**24
"""Bytes that are copied at a time."""


def zeros(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of zeros to be filled, which need not fit into the memory.

    One of more than IN_MEMORY bytes lies in a file beside the kept datasets, which has no name and so ends
    with the process. The system reads of it what is used, and drops it where memory is short. Raises OSError
    where the disk has no room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.zeros(tuple(shape), dtype)
    folder = cache_folder()
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # else a full disk would end the process when it is filled
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return np.memmap(file, dtype, "r+", shape=tuple(shape))


def take_rows(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return a copy of some rows of an array, which need not fit into the memory either."""
    chosen = zeros((len(rows), *array.shape[1:]), array.dtype)
    at_once = max(1, _COPIED // max(1, array[:1].nbytes))
    for start in range(0, len(rows), at_once):
        chosen[start : start + at_once] = array[rows[start : start + at_once]]
    return chosen
