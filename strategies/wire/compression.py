"""Compressing what clients send up, tensor by tensor: a weight's update, and what stands beside the weights.

The client encodes its reply as its very last step, and the server decodes it before any strategy sees it, so
that every strategy works over it. Arrays that are not of floating point travel as they are.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from strategies.rule import Arrays
from strategies.wire.arrays import hold, to_arrays, views
from strategies.wire.exact_sum import BLOCK
from strategies.wire.reply import ARRAYS

Parts = dict[str, NDArray[Any]]
"""A tensor's code: key of the record in which each part of it travels -> the part."""
VALUES, INDICES, LEVELS, SCALE = "values", "indices", "levels", "scale"
BFLOAT16, FLOAT32 = "bfloat16", "float32"
FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))
LARGEST = 127
"""The largest level of an int8; -128 has no counterpart."""


def top_k(update: NDArray[Any], ratio: float, generator: torch.Generator) -> Parts:
    """Return the max(1, ceil(ratio * size)) entries of largest magnitude, and where they are (int32)."""
    flat = update.reshape(-1)
    k = max(1, math.ceil(ratio * flat.size))
    indices = np.sort(np.argpartition(np.abs(flat), -k)[-k:])
    return {VALUES: flat[indices], INDICES: indices.astype(np.int32)}


def check_top_k(parts: Parts, shape: tuple[int, ...]) -> None:
    """Raise ValueError for entries that are not at places of their own in the tensor."""
    values, indices, size = parts[VALUES], parts[INDICES], math.prod(shape)
    _check_part(VALUES, values, FLOATS, (values.size,))
    _check_part(INDICES, indices, (np.dtype(np.int32),), (values.size,))
    if values.size > size:
        raise ValueError(f"it replies {values.size} entries of a tensor of {size}")
    if indices.size and (indices[0] < 0 or indices[-1] >= size or (indices[1:] <= indices[:-1]).any()):
        raise ValueError(f"its indices must rise from 0 on and stay below {size}")


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


def check_int8(parts: Parts, shape: tuple[int, ...]) -> None:
    """Raise ValueError for levels that are not of the tensor's shape, or without one scale."""
    scale = parts[SCALE]
    _check_part(LEVELS, parts[LEVELS], (np.dtype(np.int8),), shape)
    _check_part(SCALE, scale, FLOATS, ())
    if not 0 <= scale < np.inf:
        raise ValueError(f"its scale must be >= 0 and finite, got {scale}")


def from_int8(parts: Parts, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the levels times their step."""
    scale = parts[SCALE]
    return (parts[LEVELS] * (np.float64(scale) / LARGEST)).astype(scale.dtype).reshape(shape)


def to_bfloat16(update: NDArray[Any], ratio: float, generator: torch.Generator) -> Parts:
    """Return the upper halves of the entries in float32, rounded up or down at random; NumPy has no bfloat16.

    The mean over the rounding is the update: the lower half, of 65,536 steps, is how likely up is.
    """
    bits = np.asarray(update, np.float32).reshape(-1).view(np.uint32)
    drawn = torch.empty(-(-bits.size // 4), dtype=torch.int64)  # each is four numbers of 16 bits
    chance = drawn.random_(-(2**63), None, generator=generator).numpy().view(np.uint16)[: bits.size]
    halves = np.empty(bits.size, np.uint16)
    for start in range(0, bits.size, BLOCK):
        part = slice(start, start + BLOCK)
        rounded = ((bits[part] + chance[part]) >> 16).astype(np.uint16)
        # The largest entries may be rounded past what is finite.
        halves[part] = np.minimum(rounded & 0x7FFF, 0x7F7F) | (rounded & 0x8000)
    return {BFLOAT16: halves.reshape(update.shape)}


def check_bfloat16(parts: Parts, shape: tuple[int, ...]) -> None:
    """Raise ValueError for halves that are not of the tensor's shape."""
    _check_part(BFLOAT16, parts[BFLOAT16], (np.dtype(np.uint16),), shape)


def from_bfloat16(parts: Parts, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the entries in float32."""
    bits = parts[BFLOAT16].reshape(-1).astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32).reshape(shape)


def to_float32(update: NDArray[Any], ratio: float, generator: torch.Generator) -> Parts:
    """Return the entries in float32, rounded to the nearest."""
    return {FLOAT32: update.astype(np.float32)}


def check_float32(parts: Parts, shape: tuple[int, ...]) -> None:
    """Raise ValueError for entries that are not of the tensor's shape."""
    _check_part(FLOAT32, parts[FLOAT32], (np.dtype(np.float32),), shape)


def from_float32(parts: Parts, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the entries."""
    return parts[FLOAT32].reshape(shape)


@dataclass(frozen=True)
class Codec:
    """A way to compress a tensor, and back."""

    encode: Callable[[NDArray[Any], float, torch.Generator], Parts]
    decode: Callable[[Parts, tuple[int, ...]], NDArray[Any]]
    check: Callable[[Parts, tuple[int, ...]], None]
    """Raises ValueError for parts that encode no tensor of this shape, before anything is made of them."""
    keys: tuple[str, ...]
    """Of the records that its parts travel in."""
    feeds_back: bool = False
    """Whether a client adds to its next update what was left out of this one."""
    updates_in_a_sum: float = math.inf
    """Updates that are as large as one sum of them: of more than that a node sends the sum."""


CODECS: Mapping[str, Codec] = {
    # Stich et al. 2018 (arXiv:1809.07599, algorithm 1, Mem-SGD), for a round's update instead of a gradient.
    "top-k": Codec(top_k, from_top_k, check_top_k, (VALUES, INDICES), feeds_back=True),
    # QSGD (Alistarh et al. 2017, arXiv:1610.02132, section 3.1), scaled by the largest entry for the norm.
    "int8": Codec(to_int8, from_int8, check_int8, (LEVELS, SCALE)),
    # Rounded as in Gupta et al. 2015 (arXiv:1502.02551, section 3).
    "bfloat16": Codec(to_bfloat16, from_bfloat16, check_bfloat16, (BFLOAT16,), updates_in_a_sum=4),
    "float32": Codec(to_float32, from_float32, check_float32, (FLOAT32,), updates_in_a_sum=2),
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
                read[name] = _added(received[name], update) if name in received else update
            else:
                read[name] = array
        return read


def _check_part(key: str, part: NDArray[Any], types: Sequence[np.dtype[Any]], shape: tuple[int, ...]) -> None:
    if part.dtype not in types or part.shape != shape:
        wanted = f"{types[0]} of shape {[*shape]}"
        raise ValueError(f"its {key} must be {wanted}, got {part.dtype.str} of shape {[*part.shape]!s:.80}")


def _added(received: NDArray[Any], update: NDArray[Any]) -> NDArray[Any]:
    """Return the weight that an update makes of the one that was sent, in its type."""
    return np.asarray(received + update).astype(received.dtype, copy=False)


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


def decoded(records: Mapping[str, ArrayRecord], sent: ArrayRecord) -> ArrayRecord:
    """Return the arrays that a client's records encode; `sent` is what the server sent to it.

    Raises ValueError for records that encode no tensors of these shapes.
    """
    codec = _codec_of(records)
    if codec is None:
        raise ValueError(f"its update is not compressed: it has {', '.join(sorted(records))}")
    received = views(sent)
    encoded = {key: views(records[key]) for key in codec.keys}
    arrays = to_arrays(records[ARRAYS]) if ARRAYS in records else {}
    names = {name for parts in encoded.values() for name in parts}
    for key, tensors in encoded.items():
        if missing := sorted(names - tensors.keys()):
            raise ValueError(f"it replies {missing[0]} without its {key}")
    for name in encoded[codec.keys[0]]:
        # What stands beside a weight, as KIND/NAME, has the weight's shape.
        weight = name.rpartition("/")[2]
        if weight not in received or name in arrays:
            what = "twice" if name in arrays else f"and there is no weight {weight}"
            raise ValueError(f"it replies {name}, {what}")
        parts, shape = {key: tensors[name] for key, tensors in encoded.items()}, received[weight].shape
        codec.check(parts, shape)
        update = codec.decode(parts, shape)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
            arrays[name] = _added(received[name], update) if name in received else update
    return hold(arrays)


def _codec_of(keys: Collection[str]) -> Codec | None:
    """Return the codec in whose records an update travels; None where it is not compressed."""
    return next((codec for codec in CODECS.values() if all(key in keys for key in codec.keys)), None)
