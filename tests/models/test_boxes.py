"""Boxes of one's own: files of KITTI and COCO as columns in exact numbers, halves and clients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from raw_files import COCO, KITTI, write_coco, write_kitti

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.toml import quoted
from models.data import coco
from models.data.boxes import BEHIND, IGNORED, Half, boxed_dataset, padded
from models.data.columns import check_dataset
from models.data.data_files import data_files
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset

REST = ["Van", "Truck", "Person_sitting", "Cyclist", "Tram", "Misc"]


def load(name: str, folder: Path, **options: Any) -> Dataset:
    given = {"dataset": name, "data_dir": str(folder), "dataset_options": quoted(options)}
    return load_dataset(TaskConfig(**given, validation_fraction=0))


def test_kitti_in_columns(tmp_path: Path) -> None:
    write_kitti(tmp_path / "training")
    dataset = load("kitti:.", tmp_path, width=80, height=50, ignore=REST)
    assert (dataset.kind, dataset.classes, dataset.client) == ("boxed-images", ("Car", "Pedestrian"), None)
    assert dataset.info == {"max_value": 255, "skipped": 0}
    assert len(dataset.train) + len(dataset.test) == 4
    image = dataset.train["image"]
    assert image.shape[1:] == (3, 50, 80)
    assert image[0, :, 39, 79].tolist()[1:] == [100, 200]  # 40x20 became 80x40
    assert not image[:, :, 40:].any()
    assert dataset.train["box"][0].tolist() == [
        [16, 8, 48, 24], [53, 4, 60, 28], [0, 0, 8, 8], [64, 0, 80, 40]
    ]  # fmt: skip
    assert dataset.train["class"][0].tolist() == [0, 1, IGNORED, IGNORED]


def test_all_types_of_kitti_are_classes_unless_options_say_otherwise(tmp_path: Path) -> None:
    write_kitti(tmp_path)
    assert load("kitti:.", tmp_path, width=64, height=32).classes == (
        "Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc"
    )  # fmt: skip
    named = load("kitti:.", tmp_path, width=64, height=32, classes=["Pedestrian", "Van"], ignore=["Car"])
    assert named.classes == ("Pedestrian", "Van")
    assert named.train["class"][0].tolist() == [IGNORED, 0, 1, IGNORED]


def test_halves_and_clients_of_kitti(tmp_path: Path) -> None:
    write_kitti(tmp_path / "train" / "rome", 2)
    write_kitti(tmp_path / "train" / "oslo", 3)
    write_kitti(tmp_path / "val", 1)
    dataset = load("kitti:.", tmp_path, width=64, height=32)
    assert (len(dataset.train), len(dataset.test)) == (5, 1)
    assert dataset.client_names == ("oslo", "rome")
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 0, 0, 1, 1]
    config = TaskConfig(dataset="kitti:.", data_dir=str(tmp_path))
    assert len(data_files(config)) == 12


def test_coco_in_columns(tmp_path: Path) -> None:
    write_coco(tmp_path, "instances_train2017")
    write_coco(tmp_path, "instances_val2017")
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}", encoding="utf-8")
    dataset = load("coco:.", tmp_path, width=40, height=40, client="office")
    assert dataset.classes == ("dog", "person")
    assert dataset.client_names == ("oslo", "rome")
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 1]
    assert dataset.info["skipped"] == 2  # of each half the box without width
    assert dataset.train["image"][:, 0, 19, 19].tolist() == [100, 50]
    assert not dataset.train["image"][1, :, 20:].any()
    assert dataset.train["box"].tolist() == [
        [[2, 4, 8, 14], [0, 0, 0, 0]],
        [[8, 4, 24, 12], [0, 0, 40, 20]],  # cut at the border
    ]
    assert dataset.train["class"].tolist() == [[1, BEHIND], [0, IGNORED]]
    assert torch.equal(dataset.train["box"], dataset.test["box"])
    names = [file.name for file in data_files(TaskConfig(dataset="coco:.", data_dir=str(tmp_path)))]
    assert names == ["annotations/instances_train2017.json", "annotations/instances_val2017.json",
                     "images/a.png", "images/b.png"]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["latest_train", "latest_val"], ["latest_train", "latest_val"]),
        (["instances_test-dev", "instances_train"], ["instances_train", "instances_test-dev"]),
        (["a_test", "a_train_val", "a_val2017"], ["a_train_val", "a_test", "a_val2017"]),
    ],
)
def test_parts_of_coco_go_by_words_and_no_file_is_two(
    tmp_path: Path, names: list[str], parts: list[str]
) -> None:
    for name in names:
        (tmp_path / f"{name}.json").write_text("{}", encoding="utf-8")
    assert [file.stem for file in coco._files(tmp_path)] == parts


def test_two_files_of_one_part_are_refused(tmp_path: Path) -> None:
    for name in ("test", "test-dev", "train"):
        (tmp_path / f"{name}.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"one with test or .* got test-dev.json, test.json, train.json"):
        coco._files(tmp_path)


def test_files_of_coco_are_told_without_parsing(tmp_path: Path) -> None:
    write_coco(tmp_path / "elsewhere")
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    (tmp_path / "data" / "annotations" / "instances_all.json").write_text("[", encoding="utf-8")
    (tmp_path / "data" / "all").symlink_to(tmp_path / "elsewhere" / "images")
    (tmp_path / "elsewhere" / "images" / "loop").symlink_to(tmp_path / "data")
    found = coco.files_of_coco(TaskConfig(dataset="coco:data", data_dir=str(tmp_path)))
    names = [file.relative_to(tmp_path / "data").as_posix() for file in found]
    assert names == ["annotations/instances_all.json", "all/a.png", "all/b.png"]


def test_categories_of_coco_are_named_or_ignored(tmp_path: Path) -> None:
    write_coco(tmp_path)
    assert load("coco:.", tmp_path, classes=["person", "cat", "dog"]).classes == ("person", "cat", "dog")
    dataset = load("coco:.", tmp_path, ignore=["dog"])
    assert dataset.classes == ("person",)
    assert {*dataset.train["class"].flatten().tolist(), *dataset.test["class"].flatten().tolist()} <= {
        0, BEHIND, IGNORED
    }  # fmt: skip


def test_pictures_without_boxes_are_padded_to_one() -> None:
    boxes, labels = padded([[], []], [[], []])
    assert (boxes.shape, labels.tolist()) == ((2, 1, 4), [[BEHIND], [BEHIND]])


@pytest.mark.parametrize(
    ("column", "value", "line"),
    [
        ("box", torch.zeros(2, 1, 5), r"column 'box' must be \(N, M, 4\), got \(2, 1, 5\)"),
        ("box", torch.tensor([[[4.0, 0, 4, 2]]] * 2), "must have left < right <= 8 and .* in example 0"),
        ("box", torch.tensor([[[0.0, 0, 9, 2]]] * 2), r"<= 6, got \[0.0, 0.0, 9.0, 2.0\] in example 0"),
        ("class", torch.tensor([[2], [0]]), r"must have values in -2 to 1 \(classes\), got 0 to 2"),
        ("class", torch.tensor([[-3], [0]]), r"must have values in -2 to 1 \(classes\), got -3 to 0"),
    ],
)
def test_what_is_no_box_is_refused(column: str, value: torch.Tensor, line: str) -> None:
    good = Half(np.zeros((2, 1, 6, 8), np.uint8), *padded([[(0, 0, 4, 2)], [(1, 1, 8, 6)]], [[0], [1]]))
    dataset = boxed_dataset("toy", [good, good], ["cat", "dog"])
    check_dataset("toy", "boxed-images", dataset)
    wrong = Examples({**dataset.train.columns, column: value})
    with pytest.raises(UserError, match=line):
        check_dataset("toy", "boxed-images", Dataset("toy", "boxed-images", wrong, dataset.test,
                                                     classes=dataset.classes, info=dataset.info))  # fmt: skip


def test_a_detection_file_of_kitti_has_a_score_behind(tmp_path: Path) -> None:
    write_kitti(tmp_path, lines=[f"{KITTI[0]} 0.97"])
    assert load("kitti:.", tmp_path, width=64, height=32).train["class"][0].tolist() == [0]


BBOX = "bbox of annotation 1 must be left, top, width and height, finite numbers, .* got "
NO_JSON = "is no JSON file that can be read "


@pytest.mark.parametrize(
    ("box", "line"),
    [
        (f"[0, 0, 2, {'9' * 5000}]", NO_JSON),
        ("[" * 100_000, NO_JSON),
        (f"[0.5, 0, {'9' * 400}, 2]", BBOX + r"\[0.5, 0, 999"),
        ("[NaN, 0, 2, 2]", BBOX + r"\[nan, 0, 2, 2\]"),
        ("[0, 0, Infinity, 2]", BBOX + r"\[0, 0, inf, 2\]"),
        ("[0, 0, 2, 1e400]", BBOX + r"\[0, 0, 2, inf\]"),
        ("[true, 0, 2, 2]", BBOX + r"\[True, 0, 2, 2\]"),
        ("[0, 0, 2]", BBOX + r"\[0, 0, 2\]"),
    ],
)
def test_hostile_numbers_of_coco_are_one_line(tmp_path: Path, box: str, line: str) -> None:
    write_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_all.json"
    text = file.read_text(encoding="utf-8")
    assert text.count("[8, 4, 16, 8]") == 1
    file.write_text(text.replace("[8, 4, 16, 8]", box), encoding="utf-8")
    with pytest.raises(UserError, match=line) as error:
        load("coco:.", tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500 + len(str(file))


@pytest.mark.parametrize(
    ("before", "after", "options", "line"),
    [
        ("", "", {"ignore": ["dogg"]}, "unknown category in ignore of coco:. 'dogg': did you mean dog?"),
        ("", "", {"ignore": "dog"}, "ignore must be a list of names such as .*, each once, got 'dog'"),
        (
            '"width": 40',
            '"width": 41',
            {},
            "a.png has width 40 and height 20, and its annotations say 41 and 20",
        ),
        (
            '"height": 20',
            '"height": "20"',
            {},
            "its annotations say 40 and '20': mend them, or leave both out",
        ),
        ('"b.png"', '"a.png"', {}, "images must differ in file_name, got 'a.png' twice"),
        ('"id": 3, "file_name"', '"id": 7, "file_name"', {}, "images must differ in id, got 7 twice"),
        ('"id": 18', '"id": 1', {}, "categories must differ in id, got 1 twice"),
        ('"person"', '"dog"', {}, "categories must differ in name, got 'dog' twice"),
        (json.dumps(COCO["categories"]), "[]", {}, "categories must be one at least, got none"),
        (json.dumps(COCO["images"]), "[]", {}, "images must be one at least, got none"),
    ],
)
def test_what_contradicts_itself_in_coco_is_refused(
    tmp_path: Path, before: str, after: str, options: dict[str, Any], line: str
) -> None:
    write_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_all.json"
    file.write_text(file.read_text(encoding="utf-8").replace(before, after, 1), encoding="utf-8")
    with pytest.raises(UserError, match=line):
        load("coco:.", tmp_path, **options)


def test_a_byte_order_mark_and_no_sizes_are_read(tmp_path: Path) -> None:
    write_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_all.json"
    text = file.read_text(encoding="utf-8").replace('"width": 40, "height": 20, ', "")
    file.write_text(text, encoding="utf-8-sig")
    assert load("coco:.", tmp_path).classes == ("dog", "person")


def test_a_category_that_one_node_lacks_may_be_ignored_where_classes_are_named(tmp_path: Path) -> None:
    write_coco(tmp_path)
    assert load("coco:.", tmp_path, classes=["dog", "person"], ignore=["cat"]).classes == ("dog", "person")


def test_held_out_annotations_alone_are_not_trained_on(tmp_path: Path) -> None:
    write_coco(tmp_path, "instances_test2017")
    with pytest.raises(
        UserError, match=r"lacks a JSON file with 'train' .* beside instances_test2017.json: "
    ):
        load("coco:.", tmp_path)


def test_what_kitti_cannot_read_names_its_option_or_its_file(tmp_path: Path) -> None:
    write_kitti(tmp_path)
    with pytest.raises(UserError, match=r"^ignore must be a list of names such as .*, got 'Van'"):
        load("kitti:.", tmp_path, ignore="Van")
    (tmp_path / "label_2" / "000002.txt").write_bytes(b"Car \xff")
    with pytest.raises(UserError, match=r"^\S*/label_2/000002.txt is not in UTF-8 \(.*\): save it as UTF-8$"):
        load("kitti:.", tmp_path)


def test_a_client_of_coco_is_a_name(tmp_path: Path) -> None:
    write_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_all.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"oslo"', "null"), encoding="utf-8")
    with pytest.raises(UserError, match=r"office of image 3 must be the name of a client, .* got None"):
        load("coco:.", tmp_path, client="office")


def test_a_file_of_coco_elsewhere_is_not_read(tmp_path: Path) -> None:
    write_coco(tmp_path / "data")
    outside = {**COCO, "images": [{**COCO["images"][0], "file_name": "../../secret.png"}, COCO["images"][1]]}
    path = tmp_path / "data" / "annotations" / "instances_all.json"
    path.write_text(json.dumps(outside), encoding="utf-8")
    with pytest.raises(UserError, match="file_name must be a path below its folder"):
        load("coco:data", tmp_path)
