"""The numbers of arrays that came in a message, read so that they are no larger than the message itself."""

import math
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from strategies.wire.arrays import NUMPY, HeldArray, tensor_view

TYPES = {np.dtype(code).name: np.dtype(code) for code in "?bBhHiIlLqQefd"}
"""Types of numbers that travel, by name."""


def decoded(record: ArrayRecord) -> dict[str, Tensor]:
    """Return the tensors of a record, to look at; they may share its memory.

    Raises ValueError for an array whose bytes are not what it says of itself.
    """
    return {name: tensor_view(_numbers(name, array)) for name, array in record.items()}


def _numbers(name: str, array: Array) -> NDArray[Any]:
    if isinstance(array, HeldArray):
        if array.held.dtype.name not in TYPES:
            raise ValueError(f"{name} is of type {array.held.dtype}, and numbers travel")
        return array.held
    said = tuple(array.shape), array.dtype
    try:
        # Read by hand: numpy.load makes room for as many numbers as the bytes say that they hold.
        stream = BytesIO(array.data)
        if array.stype != NUMPY or npy.read_magic(stream) != (1, 0):
            raise ValueError("it is not as numpy.save writes arrays")
        shape, by_column, dtype = npy.read_array_header_1_0(stream)
    except Exception as error:  # whatever strange bytes cause
        raise ValueError(f"{name} cannot be read: {str(error)[:200]}") from error
    start = stream.tell()
    if (shape, dtype.name) != said or TYPES.get(dtype.name) != dtype or min(shape, default=0) < 0:
        raise ValueError(
            f"{name} says that it is {said[1]} {list(said[0])}, and is {dtype} {list(shape)}"[:300]
        )
    if len(array.data) - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} of {dtype} {list(shape)} comes with {len(array.data) - start} bytes"[:300])
    numbers: NDArray[Any] = np.frombuffer(array.data, dtype, offset=start)
    return numbers.reshape(shape, order="F" if by_column else "C")
