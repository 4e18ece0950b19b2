"""Names of labels on several machines, and their union."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.agreed_labels import labelled, open_labels
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.held_out import class_names
from models.data.labels import Labels, labels_of

NAMED, NUMBERED = Labels("classes"), Labels("classes", numbered=True)


def test_a_union_is_in_the_order_of_one_place_that_has_them_all() -> None:
    told = [("dog", "cat"), (), ("fox", "cat"), ("10", "9", "Ox", "é")]
    assert NAMED.union(told) == ("10", "9", "Ox", "cat", "dog", "fox", "é")
    assert NAMED.union(reversed(told)) == NAMED.union(told)
    assert NUMBERED.union([("0", "1"), ("0", "11")]) == tuple(map(str, range(12)))
    numbers_first = Labels("classes", numbers_first=True)
    assert numbers_first.union([("fox", "10"), ("2",)]) == ("2", "10", "fox")
    assert NUMBERED.union([()]) == NAMED.union([]) == ()


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([""], "a label must be 1 to 200 printable characters, without blanks at its ends, got ''"),
        ([" cat"], "without blanks at its ends, got ' cat'"),
        (["a\nb"], r"got 'a\\nb'"),
        (["\x1b[31m"], r"got '\\x1b\[31m'"),
        (["x" * 201], "a label must be 1 to 200 printable"),
        ([7], "a label must be 1 to 200 printable characters, without blanks at its ends, got 7"),
        (["a", "b", "a"], "labels must have different names"),
        ([f"{number:05d}" for number in range(1_001)], "labels must be at most 1000 together, got 1001"),
    ],
)
def test_names_that_no_labels_may_have(names: list[Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        NAMED.union([("cat",), names])


@pytest.mark.parametrize("name", ["x", "-1", "01", "1.0", "1000", "9" * 5000, "²", "٣"])
def test_a_label_that_is_called_by_its_number(name: str) -> None:
    with pytest.raises(ValueError, match=r"a label must be a whole number (from 0 on|below 1000)|printable"):
        NUMBERED.union([("0",), (name,)])


NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_names_that_look_alike_are_one(tmp_path: Path) -> None:
    assert NAMED.union([(NFC,), (NFD, "tea")]) == (NFC, "tea")
    lines = ["text,label", *(f"text {number},{(NFC, NFD)[number % 2]}" for number in range(20))]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "pictures.csv").write_text(f"file,label\n0.png,{NFC}\n1.png,{NFD}", encoding="utf-8")
    (tmp_path / "scans" / NFD).mkdir(parents=True)
    for place in (tmp_path, tmp_path / "scans" / NFD):
        for shade in range(2):
            Image.new("L", (4, 4), shade).save(place / f"{shade}.png")
    for half, name in (("train", NFC), ("test", NFD)):
        (tmp_path / f"{half}.txt").write_text(f"Ann B-{name}\nsat I-{name}\n", encoding="utf-8")
    for name, option in (
        ("csv:a.csv", "classes"),
        ("images:pictures.csv", "classes"),
        ("images:scans", "classes"),
        ("conll:.", "types"),
    ):
        assert labels_of(load(name, tmp_path, "")) == (NFC,)
        assert labels_of(load(name, tmp_path, f"{option} = ['{NFD}', 'tea']")) == (NFC, "tea")
    with pytest.raises(UserError, match=r"classes must be a list of names such as .*, each once"):
        load("csv:a.csv", tmp_path, f"classes = ['{NFD}', '{NFC}']")


def test_numbers_of_any_length_are_sorted_by_size() -> None:
    long = "1" + "0" * 5000
    names = ["b", long, "10", "010", "9", "0", "00", "a"]
    assert class_names("data", names, ()) == ("0", "00", "9", "010", "10", long, "a", "b")


def test_too_many_labels_together() -> None:
    with pytest.raises(ValueError, match="labels must be at most 1000 together, got 1200"):
        NAMED.union([[f"a{number}" for number in range(600)], [f"b{number}" for number in range(600)]])


def load(name: str, folder: Path, options: str, *labels: str) -> Dataset:
    config = TaskConfig(dataset=name, data_dir=str(folder), dataset_options=options)
    return load_dataset(labelled(config, labels))


def test_each_machine_maps_its_own_labels_to_the_agreed_ones(tmp_path: Path) -> None:
    for name in ("cat", "fox"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        Image.new("L", (4, 4), 7).save(tmp_path / "scans" / name / "0.png")
        Image.new("L", (4, 4), 8).save(tmp_path / "scans" / name / "1.png")
    scans = load("images:scans", tmp_path, "size = 4", "cat", "dog", "fox")
    assert labels_of(scans) == scans.classes == ("cat", "dog", "fox")
    assert {*scans.train["label"].tolist(), *scans.test["label"].tolist()} == {0, 2}

    np.savez(tmp_path / "scans.npz", image=np.zeros((4, 2, 2), np.uint8), label=np.array([0, 2, 0, 2]))
    arrays = load("npz:scans.npz", tmp_path, "", *map(str, range(5)))
    assert labels_of(arrays) == ("0", "1", "2", "3", "4")
    assert {*arrays.train["label"].tolist(), *arrays.test["label"].tolist()} == {0, 2}

    for half in ("train", "test"):
        (tmp_path / f"{half}.txt").write_text("Ann B-PER\nsat O\n", encoding="utf-8")
    tagged = load("conll:.", tmp_path, "", "LOC", "PER")
    assert labels_of(tagged) == ("LOC", "PER")
    assert labels_of(load("conll:.", tmp_path, "")) == ("PER",)
    assert tagged.train["tag"].tolist() == [[tagged.info["tags"].index("B-PER"), 0]]
    with pytest.raises(UserError, match="has entities of type 'PER', and types names LOC: name it too"):
        load("conll:.", tmp_path, "", "LOC")


def test_labels_are_agreed_on_where_a_dataset_takes_them_and_nobody_names_them() -> None:
    images = TaskConfig(dataset="images:x", dataset_options="size = 8")
    assert open_labels(images) == Labels("classes")
    assert labelled(images, ()) is images
    assert labelled(images, ("a'b", "c")).dataset_options == """classes = ["a'b", 'c'], size = 8"""
    with pytest.raises(ValueError, match="a label must be"):
        labelled(images, ("a\n",))
    for config in (
        TaskConfig(dataset="digits"),
        TaskConfig(dataset="conll:x", dataset_options="types = ['A']"),
    ):
        assert open_labels(config) is None
        with pytest.raises(UserError, match="takes no labels that machines have agreed on"):
            labelled(config, ("a",))
