"""Arrays of a message, and what is none."""

import tracemalloc
from io import BytesIO

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from strategies.wire.arrays import hold
from strategies.wire.decoded import decoded

ONES = np.ones((2, 3), np.float32)
SAID = "float32", (2, 3), "numpy.ndarray"


def saved(array: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int8", "uint8", "bool"])
@pytest.mark.parametrize("held", [True, False])
def test_arrays_come_out_as_they_went_in(dtype: str, held: bool) -> None:
    arrays = {
        "rows": np.arange(6).reshape(2, 3).astype(dtype),
        "columns": np.arange(6).reshape(3, 2).T.astype(dtype, order="F"),
        "number": np.array(3).astype(dtype),
        "none": np.empty((0, 2), dtype),
    }
    record = hold(arrays) if held else ArrayRecord({name: Array(array) for name, array in arrays.items()})
    for name, tensor in decoded(record).items():
        assert torch.equal(tensor, torch.from_numpy(np.array(arrays[name])))


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (
            Array(*SAID, saved(ONES)[:-1]),
            r"23 bytes are not the values of an array float32 of shape",
        ),
        (Array(*SAID, saved(ONES) + b"x"), r"25 bytes are not the values of an array float32 of"),
        (Array(*SAID, saved(ONES[0])), r".* said to be float32 \[2, 3\], and its bytes are float32 \[3\]"),
        (Array("float64", (2, 3), SAID[2], saved(ONES)), r".* said to be float64 \[2, 3\], .* are float32"),
        (Array(*SAID, header((2, 3), ">f4") + bytes(24)), r".* its bytes are >f4 \[2, 3\]"),
        (Array(*SAID, b""), "0 bytes are no array as numpy.save writes it"),
        (Array(*SAID, b"\x93NUMPY\x01\x00\xff\xff{"), "11 bytes are no array as numpy.save writes it"),
        (Array(*SAID[:2], "pickle", saved(ONES)), "an array must travel as numpy.ndarray, got 'pickle'"),
        (Array("object", (1,), SAID[2], saved(np.array([{}]))), "an array of type object .* cannot travel"),
        (Array("float32", (-2, -3), SAID[2], header((-2, -3)) + bytes(24)), "an array .* cannot travel"),
    ],
)
def test_what_is_no_array_of_numbers_is_named(array: Array, why: str) -> None:
    with pytest.raises(ValueError, match=f"^w cannot be read: {why}"):
        decoded(ArrayRecord({"w": array}))


def test_a_forged_size_makes_no_room() -> None:
    """numpy.load would ask for four TiB."""
    huge = Array("float32", (2**40,), SAID[2], header((2**40,)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="w cannot be read: 0 bytes are not the values of"):
        decoded(ArrayRecord({"w": huge}))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "record",
    [
        hold({"w": np.array(["text"])}),
        ArrayRecord({"w": Array("<U4", (1,), SAID[2], saved(np.array(["text"])))}),
    ],
)
def test_texts_are_no_numbers(record: ArrayRecord) -> None:
    with pytest.raises(ValueError, match="w is of type <U4, and numbers travel"):
        decoded(record)
