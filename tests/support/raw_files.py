"""Small files in the formats of the field's datasets."""

import hashlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
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


KITTI = [
    "Car 0.00 0 -1.58 8.00 4.00 24.00 12.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59",
    "Pedestrian 0.00 1 0.21 26.50 2.00 30.00 14.00 1.89 0.48 1.20 1.84 1.47 8.41 0.01",
    "Van 0.10 2 1.00 0.00 0.00 4.00 4.00 2.00 2.00 5.00 1.00 1.00 30.00 1.50",
    "DontCare -1 -1 -10 32.00 0.00 40.00 20.00 -1 -1 -1 -1000 -1000 -1000 -10",
]
"""Lines of a label file in KITTI's format."""


def write_kitti(folder: Path, pictures: int = 4, lines: Sequence[str] = KITTI) -> None:
    """Write pictures of 40x20 pixels, each of a shade of its own, and each with these objects."""
    for name in ("image_2", "label_2"):
        (folder / name).mkdir(parents=True)
    for number in range(pictures):
        stem = f"{number:06d}"
        Image.new("RGB", (40, 20), (10 * number, 100, 200)).save(folder / "image_2" / f"{stem}.png")
        (folder / "label_2" / f"{stem}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


COCO: dict[str, list[dict[str, Any]]] = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 40, "height": 20, "office": "rome"},
        {"id": 3, "file_name": "b.png", "width": 20, "height": 40, "office": "oslo"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [8, 4, 16, 8], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40.5, 20], "iscrowd": 1},
        {"id": 3, "image_id": 3, "category_id": 1, "bbox": [2, 4, 6, 10], "iscrowd": 0},
        {"id": 4, "image_id": 3, "category_id": 1, "bbox": [2, 4, 0, 10], "iscrowd": 0},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
}
"""What a JSON file in COCO's format holds."""


def write_coco(folder: Path, name: str = "instances_all") -> None:
    """Write two pictures of one shade each, and their annotations."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    for number, image in enumerate(COCO["images"]):
        size = image["width"], image["height"]
        Image.new("RGB", size, (50 * number + 50,) * 3).save(folder / "images" / image["file_name"])
    (folder / "annotations" / f"{name}.json").write_text(json.dumps(COCO), encoding="utf-8")
