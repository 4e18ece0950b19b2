"""Labelled pictures of one's own: a folder with a folder a class, or arrays in a file of NumPy's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.core.config import TaskConfig, require
from models.core.errors import UserError, shown
from models.data.dataset import Dataset, Examples
from models.data.source import source_path

# Pillow is imported where it is used, so that a worker of another family does without.

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
"""Of files that are taken for pictures, in any case."""
HALVES = ("train", "test")
TEST_FRACTION = 0.1
"""Part of the pictures that is held out where nobody has said which."""
MODES = {1: "L", 3: "RGB"}
"""Channels -> what Pillow calls such pictures."""
MOST_LABELS = 10_000
NAMES: Sequence[Mapping[str, str]] = (
    {"image": "train_images", "label": "train_labels"},  # as MedMNIST has them
    {"image": "x_train", "label": "y_train"},  # as Keras has them
    {"image": "image", "label": "label"},
)
"""What the arrays of training pictures may be called; those held out by "test" in the place of "train"."""


def load_image_folder(
    config: TaskConfig, size: int = 32, channels: int = 3, classes: Sequence[str] = ()
) -> Dataset:
    """Return the pictures of "images:DIR": of folders CLASS, or train/CLASS and test/CLASS, in their order.

    They are scaled to `size` x `size` pixels of `channels` channels (1 or 3). `classes` names the classes, in
    the order of their numbers, where one machine may lack some of them; unless given, they are the folders
    that there are. Without a folder test, a tenth of the pictures is held out. Raises UserError for a folder
    without pictures, of a class that is not named, and for a file that is no picture.
    """
    require(channels in MODES, "channels", "1 or 3", channels)
    require(1 <= size <= 1024, "size", "1 to 1024", size)
    folder = source_path(config)
    if not folder.is_dir():
        raise UserError(f"dataset {config.dataset!r} must name a folder of pictures, got {folder}")
    parts = [folder / half for half in HALVES if (folder / half).is_dir()]
    halves = parts if len(parts) == len(HALVES) else [folder]
    files = [_files_by_class(half) for half in halves]
    found = sorted({name for half in files for name in half})
    names = _named(classes) or tuple(found)
    if strange := [name for name in found if name not in names]:
        raise UserError(
            f"{folder} has a class {strange[0]!r}, and classes names {', '.join(names)}: name it too"
        )
    loaded = [_read(half, names, size, MODES[channels]) for half in files]
    return _dataset(config.dataset, loaded, names)


def files_of_image_folder(config: TaskConfig) -> list[Path]:
    """Return the pictures that such a dataset is read from."""
    folder = source_path(config)
    return sorted(path for path in folder.rglob("*") if _is_picture(path)) if folder.is_dir() else []


def load_npz(config: TaskConfig, classes: Sequence[str] = ()) -> Dataset:
    """Return the pictures of "npz:FILE", a file that `numpy.savez` wrote: uint8, (N, H, W) or (N, H, W, C).

    Its arrays are train_images, train_labels, test_images and test_labels, as in MedMNIST, or x_train,
    y_train, x_test and y_test, or image and label. Without those held out, a tenth of the pictures is.
    `classes` names the classes; unless given, they are the numbers from 0 to the largest label.
    """
    path = source_path(config)
    if not path.is_file():
        raise UserError(f"dataset {config.dataset!r} must name a file that numpy.savez wrote, got {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            halves = _halves(path, {name: arrays[name] for name in arrays.files})
    except ValueError as error:  # as of arrays of objects, which are pickled
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read ({error}): it must hold arrays of numbers") from error
    largest = max(int(labels.max(initial=0)) for _, labels in halves)
    require(largest < MOST_LABELS, "labels", f"< {MOST_LABELS}", largest)
    names = _named(classes) or tuple(str(label) for label in range(largest + 1))
    if largest >= len(names):
        raise UserError(f"{path} has a label {largest}, and classes names {len(names)}: name all of them")
    return _dataset(config.dataset, halves, names)


Half = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pictures (N, C, H, W) and their labels (N,)."""


def _dataset(name: str, halves: Sequence[Half], classes: tuple[str, ...]) -> Dataset:
    train, test = (
        Examples({"image": torch.from_numpy(images), "label": torch.from_numpy(labels)})
        for images, labels in (halves if len(halves) == len(HALVES) else _split(halves[0]))
    )
    return Dataset(name, "images", train, test, label="label", classes=classes, info={"max_value": 255})


def _split(whole: Half) -> tuple[Half, Half]:
    """Hold out a tenth, drawn alike on every machine: files of one class may follow one another in time."""
    images, labels = whole
    rows = np.random.default_rng(0).permutation(len(labels))
    num_test = max(round(TEST_FRACTION * len(labels)), 1)
    test, train = np.sort(rows[:num_test]), np.sort(rows[num_test:])
    return (images[train], labels[train]), (images[test], labels[test])


def _named(given: Any) -> tuple[str, ...]:
    """Return the classes that somebody names; () where nobody does."""
    if not (isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)):
        raise UserError(f"classes must be a list of names such as ['cat', 'dog'], got {shown(given)}")
    return tuple(given)


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {each.name: sorted(path for path in each.iterdir() if _is_picture(path)) for each in folders}
    if not any(found.values()):
        raise UserError(
            f"{folder} holds no pictures: put a folder for each class there, with files that end in "
            f"{', '.join(ENDINGS)}"
        )
    return {name: files for name, files in found.items() if files}


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def _read(by_class: Mapping[str, Sequence[Path]], classes: Sequence[str], size: int, mode: str) -> Half:
    files = [(path, classes.index(name)) for name, paths in by_class.items() for path in paths]
    images = np.stack([_picture(path, size, mode) for path, _ in files])
    return images, np.array([label for _, label in files], dtype=np.int64)


def _picture(path: Path, size: int, mode: str) -> NDArray[np.uint8]:
    """Return a picture as (C, H, W)."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            scaled = opened.convert(mode).resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow has it
        raise UserError(f"{path} is no picture that can be read ({' '.join(str(error).split())})") from error
    pixels = np.asarray(scaled, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _halves(path: Path, arrays: Mapping[str, NDArray[Any]]) -> list[Half]:
    for names in NAMES:
        if set(names.values()) <= arrays.keys():
            of_test = {kind: name.replace("train", "test") for kind, name in names.items()}
            both = (
                [names, of_test] if of_test != names and set(of_test.values()) <= arrays.keys() else [names]
            )
            return [_half(path, each, arrays) for each in both]
    raise UserError(
        f"{path} must hold train_images and train_labels, x_train and y_train, or image and label; it holds "
        f"{', '.join(sorted(arrays)) or 'nothing'}"
    )


def _half(path: Path, names: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> Half:
    images, labels = arrays[names["image"]], arrays[names["label"]]
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] > 4:
        raise UserError(
            f"{path}: {names['image']} must be uint8 of (N, H, W) or (N, H, W, C), got {images.dtype} "
            f"{arrays[names['image']].shape}"
        )
    if labels.dtype.kind not in "iu" or labels.size != len(images) or labels.min(initial=0) < 0:
        raise UserError(
            f"{path}: {names['label']} must be a whole number from 0 on for each of {len(images)} pictures, "
            f"got {labels.dtype} {labels.shape}"
        )
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels.reshape(-1).astype(np.int64)
