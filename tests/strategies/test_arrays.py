"""Arrays that go through messages: who copies them, and what Flower makes of them."""

import pickle

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from strategies.wire.arrays import (
    HeldArray,
    hold,
    hold_tensors,
    num_message_bytes,
    record_of,
    tensor_view,
    to_arrays,
    to_record,
    view_of,
    views,
)


def test_what_is_held_is_the_array_itself_from_end_to_end() -> None:
    weights = torch.arange(6.0).reshape(2, 3)
    record = record_of({**hold_tensors({"w": weights}), "b": HeldArray(np.zeros(2))})
    assert tensor_view(views(record)["w"]).data_ptr() == weights.data_ptr()
    assert not views(record)["w"].flags.writeable


def test_copies_are_the_callers_own() -> None:
    array = np.arange(3.0)
    record = to_record({"w": array})
    array[0] = 7
    taken = to_arrays(record)["w"]
    taken[1] = 7
    assert views(record)["w"].tolist() == [0, 1, 2]
    assert record["w"].numpy().flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.float64(3.5),
        np.zeros((0, 4)),
        np.array([True, False]),
    ],
)
def test_flower_reads_and_sizes_what_is_held(array: np.ndarray) -> None:
    held = hold({"w": np.asarray(array)})["w"]
    plain = Array(np.asarray(array))
    assert (held.dtype, held.shape, held.stype, held.data) == (
        plain.dtype,
        plain.shape,
        plain.stype,
        plain.data,
    )
    assert num_message_bytes(held) == num_message_bytes(plain) == len(plain.data)
    assert held.object_id == plain.object_id
    read = Array.inflate(held.deflate(), held.children)
    assert np.array_equal(read.numpy(), array)
    assert held == plain


def test_a_record_travels_between_processes_out_of_band() -> None:
    record = hold({"w": np.arange(100_000.0)})
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(record["w"], protocol=5, buffer_callback=buffers.append)
    assert len(packed) < 1_000
    back = pickle.loads(packed, buffers=buffers)
    assert np.shares_memory(view_of(back), view_of(record["w"]))


def test_flowers_own_arrays_are_viewed_too() -> None:
    record = ArrayRecord([np.arange(2.0)])
    assert [array.tolist() for array in views(record).values()] == [[0, 1]]
