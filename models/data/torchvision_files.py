"""The files that torchvision's datasets lie in, told without importing it, which takes over a second."""

from collections.abc import Mapping
from pathlib import Path


def _idx(name: str) -> dict[Path, Path]:
    """Return the files of the MNIST family, each of which comes in an archive of its own."""
    kinds = ("images-idx3", "labels-idx1")
    files = [Path(name, "raw", f"{half}-{kind}-ubyte") for half in ("train", "t10k") for kind in kinds]
    return {file: file.with_suffix(".gz") for file in files}


_CIFAR10 = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]

ARCHIVES: Mapping[str, Mapping[Path, Path]] = {
    "MNIST": _idx("MNIST"),
    "FashionMNIST": _idx("FashionMNIST"),
    "CIFAR10": {Path("cifar-10-batches-py", name): Path("cifar-10-python.tar.gz") for name in _CIFAR10},
}
"""Class of torchvision -> each of its files and the archive that it comes in, below the data folder."""
