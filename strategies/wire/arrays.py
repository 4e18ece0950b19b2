"""Arrays in and out of messages, copied no more often than they must be.

Flower's `Array` is made of bytes: an array that goes into it and comes out again is copied three times.
Within one process, and from a process to another one of the same machine, nobody needs the bytes.
"""

import functools
import math
import warnings
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from flwr.common.typing import NDArray as FlowerArray
from numpy.typing import NDArray
from torch import Tensor

NUMPY = "numpy.ndarray"
"""How Flower calls bytes as `numpy.save` writes them."""


BEFORE_HEADER = 10
"""Bytes of a saved array before its header, the last two of which hold the header's length."""
LONGEST_HEADER = 1000
"""Bytes up to the end of a header; those of arrays of numbers are about 128."""


class HeldArray(Array):
    """An `Array` that holds a NumPy array, and makes bytes of it where somebody asks for them.

    Pickled by protocol 5 the array goes out of band, so that processes which share memory can share it.
    """

    # Flower writes it into what it sends, and looks for a class of this name when it reads.
    __qualname__ = "Array"

    def __init__(self, held: NDArray[Any]) -> None:
        """Hold the array itself, which nobody may change from now on."""
        view = held.view()
        view.flags.writeable = False
        self.__dict__ |= {
            "held": view,
            "dtype": str(held.dtype),
            "shape": tuple(held.shape),
            "stype": NUMPY,
        }

    @property
    def data(self) -> bytes:  # type: ignore[override]  # what is a field there is made when it is asked for
        """The array as `numpy.save` writes it."""
        buffer = BytesIO()
        np.save(buffer, self.held, allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> FlowerArray:
        """Return a copy, which is the caller's own, as Flower does."""
        return self.held.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return hold_array, (self.held,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]  # as Flower's

    held: NDArray[Any]


def hold_array(array: NDArray[Any]) -> HeldArray:
    """Return an `Array` that holds this array itself."""
    return HeldArray(array)


def hold(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Wrap arrays for a message without copying them: nobody may change them from now on."""
    # NumPy turns a result without axes into a number, which is no array to Flower.
    return record_of({name: HeldArray(np.asarray(array)) for name, array in arrays.items()})


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return a record of these very arrays: made of a dict, it would hold copies of their bytes."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def to_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Wrap arrays for a message, copying them."""
    return hold({name: np.array(array, order="C") for name, array in arrays.items()})


def to_arrays(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Unwrap a message's arrays, copying them."""
    return {name: array.numpy() for name, array in record.items()}


def view_of(array: Array) -> NDArray[Any]:
    """Return a message's array to look at; it is not the caller's, and may be read-only.

    Raises ValueError where the bytes hold no array, or another one than the message says.
    """
    if isinstance(array, HeldArray):
        return array.held
    if array.stype != NUMPY:
        raise ValueError(f"an array must travel as {NUMPY}, got {array.stype[:40]!r}")
    found = array_in(array.data)
    if (str(found.dtype), found.shape) != (array.dtype, tuple(array.shape)):
        said = f"{array.dtype[:40]} {[*array.shape]!s:.80}"
        raise ValueError(f"an array is said to be {said}, and its bytes are {found.dtype} {[*found.shape]}")
    return found


def array_in(data: bytes) -> NDArray[Any]:
    """Return the array that `numpy.save` wrote, in the same memory; raise ValueError for any other bytes.

    Its size is compared with that of the bytes before anything is made of it. `numpy.load` would make room
    for whatever the header says, and would unpack archives.
    """
    begin = BEFORE_HEADER + int.from_bytes(data[BEFORE_HEADER - 2 : BEFORE_HEADER], "little")
    try:
        shape, fortran, dtype = _header(data[: min(begin, LONGEST_HEADER)])
    except Exception as error:  # a message may hold anything
        raise ValueError(f"{len(data)} bytes are no array as numpy.save writes it") from error
    if dtype.hasobject or dtype.fields or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"an array of type {dtype!s:.80} and shape {[*shape]!s:.80} cannot travel")
    if math.prod(shape) * dtype.itemsize != len(data) - begin:
        said = f"{dtype} of shape {[*shape]!s:.80}"
        raise ValueError(f"{len(data) - begin} bytes are not the values of an array {said}")
    return np.ndarray(shape, dtype, data, begin, order="F" if fortran else "C")


@functools.lru_cache(maxsize=10_000)
def _header(begin: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type of a saved array: all clients send the same ones."""
    stream = BytesIO(begin)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("it is written in another way than plain numbers are")
    return np.lib.format.read_array_header_1_0(stream)


def views(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Unwrap a message's arrays to look at; they are not the caller's, and may be read-only."""
    return {name: view_of(array) for name, array in record.items()}


def tensor_view(array: NDArray[Any]) -> Tensor:
    """Return a tensor that shares an array's memory, to look at: torch knows of none that is read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def hold_tensors(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Wrap tensors for a message without copying them: nobody may change them from now on."""
    return hold({name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()})


def num_message_bytes(array: Array) -> int:
    """Return the bytes that an array has in a message."""
    if isinstance(array, HeldArray):
        return _num_header_bytes(array.held.dtype, array.held.shape) + array.held.nbytes
    return len(array.data)


@functools.lru_cache(maxsize=10_000)
def _num_header_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Return the bytes that `numpy.save` writes ahead of the values."""
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return len(buffer.getvalue())
