"""Labelled pictures as arrays in a file of NumPy's, read a part at a time."""

import math
import tokenize
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from models.core.config import TaskConfig, require
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.held_out import named_classes
from models.data.large import zeros
from models.data.pictures import Half, picture_dataset
from models.data.source import source_path

MOST_LABELS = 10_000
NAMES: Sequence[Mapping[str, str]] = (
    {"image": "train_images", "label": "train_labels"},  # as MedMNIST has them
    {"image": "x_train", "label": "y_train"},  # as Keras has them
    {"image": "image", "label": "label"},
)
"""What the arrays of training pictures may be called; those held out by "test" in the place of "train"."""
VALIDATION = ("", "train", "test")
_ENDING = ".npy"
"""Of arrays in the file."""
_AT_ONCE = 2**24
"""Bytes of pictures that are read at a time."""
_LONGEST = {zipfile.ZIP_DEFLATED: 1032, zipfile.ZIP_BZIP2: 2**20, zipfile.ZIP_LZMA: 2**20}
"""Way to compress -> bytes that one byte can stand for; NumPy itself uses the first, or none."""
_OF_ARRAYS = (
    ValueError,  # as of arrays of objects, which are pickled
    RuntimeError,  # of a password, or a way to compress that zipfile does not know
    MemoryError,
    OverflowError,
    tokenize.TokenError,  # NumPy's, of a header
)
"""What reading an archive raises that holds no arrays, beside what reading any file does."""

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape of an array, whether its columns lie together, and its type."""


def load_npz(config: TaskConfig, classes: Sequence[str] = (), validation: str = "") -> Dataset:
    """Return the pictures of "npz:FILE", a file that `numpy.savez` wrote: uint8, (N, H, W) or (N, H, W, C).

    Its arrays are train_images, train_labels, test_images and test_labels, as in MedMNIST, or x_train,
    y_train, x_test and y_test, or image and label. Without those held out, a tenth of the pictures is.
    `validation` says what becomes of val_images and val_labels: "" makes them the validation examples, where
    there are test pictures too and the run has any, "train" adds them to the training pictures, "test" holds
    them out in the place of the test pictures.
    `classes` names the classes; unless given, they are the numbers from 0 to the largest label.
    """
    require(validation in VALIDATION, "validation", "'train', 'test' or ''", validation)
    path = source_path(config)
    if not path.is_file():
        raise UserError(f"dataset {config.dataset!r} must name a file that numpy.savez wrote, got {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            halves = _halves(path, archive, validation)
    except UserError:
        raise
    except _OF_ARRAYS as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} cannot be read ({why}): it must hold arrays of numbers") from error
    largest = max(int(labels.max(initial=0)) for _, labels in halves)
    require(largest < MOST_LABELS, "labels", f"< {MOST_LABELS}", largest)
    names = named_classes(classes) or tuple(str(label) for label in range(largest + 1))
    if largest >= len(names):
        raise UserError(
            f"{path} has a label {largest}, so classes must name {largest + 1} or more, got {len(names)}"
        )
    return picture_dataset(config.dataset, halves, names)


def _halves(path: Path, archive: zipfile.ZipFile, validation: str) -> list[Half]:
    held = {name.removesuffix(_ENDING) for name in archive.namelist() if name.endswith(_ENDING)}
    for names in NAMES:
        if not set(names.values()) <= held:
            continue
        train, test, val = (
            {kind: name.replace("train", half) for kind, name in names.items()}
            for half in ("train", "test", "val")
        )
        if validation and (val == train or not set(val.values()) <= held):
            raise UserError(
                f"{path} must hold {' and '.join(val.values())} for validation = {validation!r}, it holds "
                f"{', '.join(sorted(held))}"
            )
        _check_whole(path, [train, test, val], held)
        in_training = [train, val] if validation == "train" else [train]
        held_out = val if validation == "test" else test
        of_halves = [in_training]
        if not validation and val != train and val["image"] in held and test["image"] not in held:
            raise UserError(
                f"{path} holds {' and '.join(val.values())} and no {test['image']}: say what they are for, "
                "as validation = 'train' or validation = 'test' in dataset-options"
            )
        if held_out != train and set(held_out.values()) <= held:
            of_halves.append([held_out])
            if not validation and val != train and set(val.values()) <= held:
                of_halves.append([val])
        return [_half(path, archive, each) for each in of_halves]
    raise UserError(
        f"{path} must hold train_images and train_labels, x_train and y_train, or image and label; it holds "
        f"{', '.join(sorted(held)) or 'nothing'}"
    )


def _check_whole(path: Path, parts: Sequence[Mapping[str, str]], held: set[str]) -> None:
    """Raise UserError for pictures without their labels, or labels without pictures."""
    for names in parts:
        missing = sorted(set(names.values()) - held)
        if len(missing) == 1:
            (there,) = set(names.values()) & held
            raise UserError(f"{path} holds {there} and no {missing[0]}: save both, or neither")


def _half(path: Path, archive: zipfile.ZipFile, parts: Sequence[Mapping[str, str]]) -> Half:
    """Return the pictures and labels of one half, which may be those of several pairs of arrays."""
    labels = [_labels(path, archive, names) for names in parts]
    shapes = [_shape(path, archive, names["image"]) for names in parts]
    if len({shape[1:] for shape in shapes}) > 1:
        raise UserError(
            f"{path}: {parts[1]['image']} must be of {shapes[0][1:]} as training pictures, got "
            f"{shapes[1][1:]}"
        )
    _, height, width, channels = shapes[0]
    images = zeros((sum(shape[0] for shape in shapes), channels, height, width), np.uint8)
    end = 0
    for names, shape, numbers in zip(parts, shapes, labels, strict=True):
        if numbers.size != shape[0]:
            raise UserError(
                f"{path}: {names['label']} must be a whole number from 0 on for each of {shape[0]} pictures, "
                f"got {numbers.dtype} {numbers.shape}"
            )
        start, end = end, end + shape[0]
        _fill(images[start:end], archive, names["image"], shape)
    return images, np.concatenate([numbers.reshape(-1) for numbers in labels]).astype(np.int64)


def _labels(path: Path, archive: zipfile.ZipFile, names: Mapping[str, str]) -> NDArray[Any]:
    _header(archive, names["label"])
    with archive.open(names["label"] + _ENDING) as member:
        labels: NDArray[Any] = npy.read_array(member, allow_pickle=False)
    allowed = f"{path}: {names['label']} must be a whole number from 0 on for each picture"
    if labels.dtype.kind not in "iu":
        raise UserError(f"{allowed}, got {labels.dtype} {labels.shape}")
    if labels.min(initial=0) < 0:
        raise UserError(f"{allowed}, got {labels.min()}")
    return labels


def _shape(path: Path, archive: zipfile.ZipFile, name: str) -> tuple[int, int, int, int]:
    """Return (N, H, W, C) of an array of pictures, of which nothing else is read."""
    shape, _, dtype = _header(archive, name)
    whole = (*shape, 1) if len(shape) == 3 else shape
    if dtype != np.uint8 or len(whole) != 4 or whole[3] > 4:
        raise UserError(f"{path}: {name} must be uint8 of (N, H, W) or (N, H, W, C), got {dtype} {shape}")
    num, height, width, channels = whole
    return num, height, width, channels


def _fill(images: NDArray[np.uint8], archive: zipfile.ZipFile, name: str, shape: Sequence[int]) -> None:
    """Read pictures (N, H, W, C) into (N, C, H, W), some at a time."""
    _, fortran, _ = _header(archive, name)
    with archive.open(name + _ENDING) as member:
        if fortran:  # whose pictures do not lie one after the other
            images[:] = npy.read_array(member, allow_pickle=False).reshape(shape).transpose(0, 3, 1, 2)
            return
        _read_header(member)
        each = int(np.prod(shape[1:]))
        at_once = max(_AT_ONCE // max(each, 1), 1)
        for first in range(0, shape[0], at_once):
            num = min(at_once, shape[0] - first)
            content = member.read(num * each)
            if len(content) < num * each:
                raise ValueError(f"{name} ends before its last picture")
            pictures = np.frombuffer(content, np.uint8).reshape(num, *shape[1:])
            images[first : first + num] = pictures.transpose(0, 3, 1, 2)


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    """Return what the header of an array says, once the file is as long as that needs."""
    with archive.open(name + _ENDING) as member:
        shape, fortran, dtype = _read_header(member)
    if dtype.hasobject:
        raise ValueError(f"{name} is an array of objects")
    needed, held = math.prod(shape) * dtype.itemsize, _most_bytes(archive, name + _ENDING)
    if min(shape, default=0) < 0 or needed > held:
        raise ValueError(f"{name} says that it is {dtype} {shape}, and holds {held:,} bytes at most")
    return shape, fortran, dtype


def _most_bytes(archive: zipfile.ZipFile, member: str) -> int:
    """Return how long a member can be: what the archive says of it is no more to be believed."""
    info = archive.getinfo(member)
    whole = Path(str(archive.filename)).stat().st_size
    return min(info.file_size, _LONGEST.get(info.compress_type, 1) * min(info.compress_size, whole))


def _read_header(member: Any) -> Header:
    """Return shape, whether columns lie together, and type of an array in NumPy's format."""
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(member)
    return shape, fortran, dtype
