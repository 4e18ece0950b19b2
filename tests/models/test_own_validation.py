"""Data that brings validation examples of its own: all of its training examples are trained on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.columns import check_dataset
from models.data.dataset import Dataset
from models.data.dataset_file import dataset_of, tensors_of
from models.data.datasets import load_dataset

PARTS = {"train": 4, "test": 3, "valid": 2}
"""Part of data -> how many examples it has."""


def pictures(folder: Path) -> str:
    for part, count in PARTS.items():
        (folder / part / "cat").mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / part / "cat" / f"{number}.png")
    return "images:."


def listed_pictures(folder: Path) -> str:
    pictures(folder)
    for part, count in PARTS.items():
        lines = [f"{part}/cat/{number}.png,cat" for number in range(count)]
        (folder / f"{part}.csv").write_text("\n".join(["file,label", *lines]), encoding="utf-8")
    return "images:."


def arrays(folder: Path) -> str:
    found = {}
    for part, count in PARTS.items():
        name = part.replace("valid", "val")
        found[f"{name}_images"] = np.zeros((count, 8, 8), np.uint8)
        found[f"{name}_labels"] = np.zeros((count, 1), np.uint8)
    np.savez(folder / "a.npz", **found)  # type: ignore[arg-type]
    return "npz:a.npz"


def labelled_texts(folder: Path) -> str:
    for part, count in PARTS.items():
        lines = [f"text {part} {number},{number % 2}" for number in range(count)]
        (folder / f"{part}.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return "csv:."


def plain_texts(folder: Path) -> str:
    for part, count in PARTS.items():
        lines = [json.dumps({"text": "x" * 127}) for _ in range(count)]  # a window each, with a line's end
        (folder / f"{part}.json").write_text("\n".join(lines), encoding="utf-8")
    return "json:."


def hugging_face(folder: Path) -> str:
    pytest.importorskip("datasets")
    return labelled_texts(folder).replace("csv:.", "hf:.")


def column_files(folder: Path) -> str:
    for part, count in PARTS.items():
        (folder / f"{part}.txt").write_text("Rome B-LOC\n\n" * count, encoding="utf-8")
    return "conll:."


def parallel(folder: Path) -> str:
    for part, count in PARTS.items():
        for language in ("de", "en"):
            lines = [f"{language} {number}" for number in range(count)]
            (folder / f"{part}.{language}").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return "parallel:."


def dialogues(folder: Path) -> str:
    for part, count in PARTS.items():
        lines = [json.dumps({"turns": [f"how is {number}", f"{number} is fine"]}) for number in range(count)]
        (folder / f"{part}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return "dialogue:."


def pictures_with_texts(folder: Path) -> str:
    for part, count in PARTS.items():
        lines = [f",text {number},{number % 2}" for number in range(count)]
        (folder / f"{part}.csv").write_text("\n".join(["image,text,label", *lines]), encoding="utf-8")
    return "multimodal:."


def pictures_beside_texts(folder: Path) -> str:
    pictures(folder)
    return "multimodal:."


OPTIONS = {"parallel": "source = 'de', target = 'en'"}


@pytest.mark.parametrize(
    "write",
    [
        pictures,
        listed_pictures,
        arrays,
        labelled_texts,
        plain_texts,
        hugging_face,
        column_files,
        parallel,
        dialogues,
        pictures_with_texts,
        pictures_beside_texts,
    ],
)
def test_what_is_called_validation_beside_a_test_is_for_validation(
    tmp_path: Path, write: Callable[[Path], str]
) -> None:
    options = OPTIONS.get(write.__name__, "")
    config = TaskConfig(dataset=write(tmp_path), dataset_options=options, data_dir=str(tmp_path))
    dataset = load_dataset(config)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.test), len(dataset.validation)) == (4, 3, 2)
    off = load_dataset(config.model_copy(update={"validation_fraction": 0.0}))
    assert (len(off.train), len(off.test), off.validation) == (4, 3, None)


def test_it_is_kept_and_checked_as_the_others_are(tmp_path: Path) -> None:
    arrays(tmp_path)
    dataset = load_dataset(TaskConfig(dataset="npz:a.npz", data_dir=str(tmp_path)))
    tensors = tensors_of(dataset)
    save_file(tensors, tmp_path / "kept")
    again = dataset_of(tensors)
    assert again.validation is not None
    assert len(again.validation) == 2
    wrong = Dataset(**{**vars(dataset), "validation": dataset.validation.take(np.arange(0))})  # type: ignore[union-attr]
    with pytest.raises(UserError, match="dataset 'a': validation must hold at least one example"):
        check_dataset("a", "images", wrong)
