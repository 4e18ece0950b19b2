"""Small files in the formats of the field's datasets."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

CIFAR_BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def values(shape: tuple[int, ...]) -> np.ndarray:
    """Bytes 0, 1, 2 ... so that every pixel is known; labels are 0, 1, 2 ... likewise."""
    return (np.arange(np.prod(shape)) % 256).astype(np.uint8).reshape(shape)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar10(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write two rows a batch, and give torchvision, which checks MD5 sums, those of our files."""
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir()
    for number, batch in enumerate(CIFAR_BATCHES):
        rows = {
            "data": values((2, 3072)),
            "labels": [number, 9],
            "batch_label": batch,
            "filenames": ["a", "b"],
        }
        (folder / batch).write_bytes(pickle.dumps(rows, protocol=2))
    meta = {"num_cases_per_batch": 2, "label_names": CIFAR_CLASSES, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    monkeypatch.setattr(CIFAR10, "train_list", [[batch, md5(folder / batch)] for batch in CIFAR_BATCHES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(folder / "test_batch")]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(folder / "batches.meta")})
    return folder
