"""Compressing what clients send up, tensor by tensor: a weight's update, and what stands beside the weights.

The client encodes its reply as its very last step, and the server decodes it before any strategy sees it, so
that every strategy works over it. Arrays that are not of floating point travel as they are.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, RecordDict
from numpy.typing import NDArray

from strategies.rule import Arrays
from strategies.wire.arrays import to_arrays, to_record
from strategies.wire.reply import ARRAYS

Parts = dict[str, NDArray[Any]]
"""A tensor's code: key of the record in which each part of it travels -> the part."""
VALUES, INDICES, LEVELS, SCALE = "values", "indices", "levels", "scale"
LARGEST = 127
"""The largest level of an int8; -128 has no counterpart."""


def top_k(update: NDArray[Any], ratio: float, generator: torch.Generator) -> Parts:
    """Return the max(1, ceil(ratio * size)) entries of largest magnitude, and where they are (int32)."""
    flat = update.reshape(-1)
    k = max(1, math.ceil(ratio * flat.size))
    indices = np.sort(np.argpartition(np.abs(flat), -k)[-k:])
    return {VALUES: flat[indices], INDICES: indices.astype(np.int32)}


def from_top_k(parts: Parts, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the tensor that holds the entries, and is zero elsewhere."""
    update = np.zeros(shape, parts[VALUES].dtype)
    update.reshape(-1)[parts[INDICES]] = parts[VALUES]
    return update


def to_int8(update: NDArray[Any], ratio: float, generator: torch.Generator) -> Parts:
    """Return the entries in steps of a 127th of the largest magnitude, rounded up or down at random.

    The mean over the rounding is the update: up is as likely as an entry is close to it.
    """
    scale = np.abs(update).max()
    steps = update * (LARGEST / np.float64(scale)) if scale else np.zeros(update.shape)
    chance = torch.rand(update.shape, generator=generator, dtype=torch.float64).numpy()
    levels = np.floor(steps + chance).clip(-LARGEST, LARGEST)  # the largest entry may be rounded past it
    return {LEVELS: levels.astype(np.int8), SCALE: np.asarray(scale)}


def from_int8(parts: Parts, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the levels times their step."""
    scale = parts[SCALE]
    return (parts[LEVELS] * (np.float64(scale) / LARGEST)).astype(scale.dtype).reshape(shape)


@dataclass(frozen=True)
class Codec:
    """A way to compress a tensor, and back."""

    encode: Callable[[NDArray[Any], float, torch.Generator], Parts]
    decode: Callable[[Parts, tuple[int, ...]], NDArray[Any]]
    keys: tuple[str, str]
    """Of the records that its parts travel in."""
    feeds_back: bool
    """Whether a client adds to its next update what was left out of this one."""


CODECS: Mapping[str, Codec] = {
    # Stich et al. 2018 (arXiv:1809.07599, algorithm 1, Mem-SGD), for a round's update instead of a gradient.
    "top-k": Codec(top_k, from_top_k, (VALUES, INDICES), feeds_back=True),
    # QSGD (Alistarh et al. 2017, arXiv:1610.02132, section 3.1), scaled by the largest entry for the norm.
    "int8": Codec(to_int8, from_int8, (LEVELS, SCALE), feeds_back=False),
}


@dataclass
class Compressed:
    """A client's reply, encoded."""

    records: dict[str, Parts] = field(default_factory=dict)
    """Key of the record -> name of the tensor -> what of it travels there."""
    residual: Parts = field(default_factory=dict)
    """What was left out, by name of the tensor: the client adds it to its next update."""

    def decoded(self, codec: Codec, arrays: Arrays, received: Arrays) -> dict[str, NDArray[Any]]:
        """Return what the server will read for the `arrays` that were encoded."""
        read = {}
        for name, array in arrays.items():
            parts = {key: self.records[key][name] for key in codec.keys if name in self.records.get(key, {})}
            if parts:
                update = codec.decode(parts, array.shape)
                read[name] = received[name] + update if name in received else update
            else:
                read[name] = array
        return read


def compress(
    codec: Codec,
    ratio: float,
    arrays: Arrays,
    received: Arrays,
    residual: Arrays,
    generator: torch.Generator,
) -> Compressed:
    """Encode a reply; `received` is what the server sent, `residual` what the last reply left out."""
    compressed = Compressed()
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            compressed.records.setdefault(ARRAYS, {})[name] = array
            continue
        update = array - received[name] if name in received else array
        if codec.feeds_back and name in residual:
            update = update + residual[name]
        update = np.asarray(update)  # NumPy turns a result without axes into a number
        parts = codec.encode(update, ratio, generator)
        for key, part in parts.items():
            compressed.records.setdefault(key, {})[name] = part
        if codec.feeds_back:
            compressed.residual[name] = np.asarray(update - codec.decode(parts, update.shape))
    return compressed


def decompress(content: RecordDict, sent: ArrayRecord) -> RecordDict:
    """Return a client's reply as it would be without compression; `sent` is what the server sent to it."""
    codecs = (codec for codec in CODECS.values() if content.array_records.keys() >= set(codec.keys))
    codec = next(codecs, None)
    if codec is None:
        return content
    received = to_arrays(sent)
    encoded = {key: to_arrays(content.array_records[key]) for key in codec.keys}
    arrays = to_arrays(content.array_records[ARRAYS]) if ARRAYS in content else {}
    for name in encoded[codec.keys[0]]:
        # What stands beside a weight, as KIND/NAME, has the weight's shape.
        shape = received[name.rpartition("/")[2]].shape
        update = codec.decode({key: parts[name] for key, parts in encoded.items()}, shape)
        arrays[name] = received[name] + update if name in received else update
    others = {key: record for key, record in content.items() if key not in (ARRAYS, *codec.keys)}
    return RecordDict({ARRAYS: to_record(arrays), **others})
