"""The tensors that came in a message, read so that they are no larger than the message itself."""

import numpy as np
from flwr.app import Array, ArrayRecord
from torch import Tensor

from strategies.wire.arrays import tensor_view, view_of

TYPES = {np.dtype(code).name: np.dtype(code) for code in "?bBhHiIlLqQefd"}
"""Types of numbers that travel, by name."""


def decoded(record: ArrayRecord) -> dict[str, Tensor]:
    """Return the tensors of a record, to look at; they may share its memory.

    Raises ValueError for an array whose bytes are not what it says of itself, and for what is no number.
    """
    return {name: _tensor(name, array) for name, array in record.items()}


def _tensor(name: str, array: Array) -> Tensor:
    try:
        numbers = view_of(array)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
    if TYPES.get(numbers.dtype.name) != numbers.dtype:
        raise ValueError(f"{name} is of type {numbers.dtype}, and numbers travel")
    return tensor_view(numbers)
