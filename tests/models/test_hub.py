"""Parquet files, and what the library `datasets` reads: folders, files and names of the hub."""

import datetime
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.toml import quoted
from models.data.data_files import data_files
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.labelled_text import read_texts

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TEXTS = [f"text {number}" for number in range(20)]
LABELS = [number % 2 for number in range(20)]
NAMES = ["praise", "blame"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def load(name: str, folder: Path, **options: Any) -> Dataset:
    load_dataset.cache_clear()
    given = quoted(options)
    return load_dataset(
        TaskConfig(dataset=name, data_dir=str(folder), dataset_options=given, validation_fraction=0.0)
    )


def texts_of(dataset: Dataset) -> list[tuple[str, str]]:
    return [
        (text, dataset.classes[number])
        for half in (dataset.train, dataset.test)
        for text, number in zip(read_texts(half["text"]), half["label"].tolist(), strict=True)
    ]


EXPECTED = [(text, NAMES[label]) for text, label in zip(TEXTS, LABELS, strict=True)]


def split(num: int = 20) -> Any:
    """Return texts with a ClassLabel, as the hub has them."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)}
    )
    return datasets.Dataset.from_dict({"text": TEXTS[:num], "label": LABELS[:num]}, features=features)


def test_a_parquet_file_with_the_names_of_its_numbers(tmp_path: Path) -> None:
    split().to_parquet(tmp_path / "a.parquet")
    dataset = load("parquet:a.parquet", tmp_path)
    assert dataset.classes == ("praise", "blame")
    assert sorted(texts_of(dataset)) == sorted(EXPECTED)


def test_series_with_dates_in_a_parquet_file(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    table = pyarrow.table(
        {
            "day": [day + datetime.timedelta(days=number) for number in range(20)],
            "price": pyarrow.array(range(20), pyarrow.float32()),
            "shop": ["a"] * 20,
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    dataset = load("parquet:a.parquet", tmp_path, time="day", value="price", client="shop", window=5)
    assert dataset.info["dates"]
    assert dataset.test["target"].tolist() == [16, 17, 18, 19]
    assert dataset.test["time"].tolist() == [19723 + 16 + number for number in range(4)]


@pytest.mark.parametrize(
    ("time", "allowed"),
    [
        (pyarrow.array([5, 2**62], pyarrow.timestamp("us")), "1 to 9999, got 'date value out of range'$"),
        (
            pyarrow.array([5, 2**30], pyarrow.int32()).cast(pyarrow.date32()),
            "1 to 9999, got 'days=1073741824",
        ),
        (pyarrow.array([5, 2**35], pyarrow.timestamp("s")), r"1678 to 2261, got datetime.datetime\(3058,"),
    ],
)
def test_dates_of_a_far_year(tmp_path: Path, time: Any, allowed: str) -> None:
    table = pyarrow.table({"time": time, "value": [1.0, 2.0], "client": ["a", "a"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    for name in ("parquet:a.parquet", "hf:a.parquet"):
        with pytest.raises(UserError, match=f"row 2: time must be a date of the years {allowed}"):
            load(name, tmp_path)


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ([1.0, None], "{}, row 2: value must be filled in, or the row left out, got None"),
        ([1.0, float("nan")], "{}, row 2: value must be filled in, or the row left out, got nan"),
        (["1", "high"], "{}, row 2: value must be a finite number, got 'high'"),
        ([[1.0], [2.0]], r"{}, row 1: value must be a finite number, got \[1.0\]"),
    ],
)
def test_values_in_a_parquet_file_that_are_none(tmp_path: Path, column: list[Any], why: str) -> None:
    table = pyarrow.table({"time": [0, 1], "value": column, "client": ["a", "a"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=why.format(tmp_path / "a.parquet")):
        load("parquet:a.parquet", tmp_path)


def test_what_is_no_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("time,value,client", encoding="utf-8")
    with pytest.raises(UserError, match=r"a.parquet is no Parquet file that can be read \(Parquet magic"):
        load("parquet:a.parquet", tmp_path)
    with pytest.raises(UserError, match=r"cannot be read: FileNotFoundError .*b.parquet"):
        load("parquet:b.parquet", tmp_path)


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": split(), "validation": split(3)}).save_to_disk(tmp_path / "letters")
    dataset = load("hf:letters", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (20, 3)
    assert texts_of(dataset) == [*EXPECTED, *EXPECTED[:3]]
    assert {"dataset_dict.json"} <= {
        file.name for file in data_files(TaskConfig(dataset="hf:letters", data_dir=str(tmp_path)))
    }
    with pytest.raises(UserError, match="test_split must be one of train, validation, got 'tset'"):
        load("hf:letters", tmp_path, test_split="tset")
    datasets.DatasetDict({"train": split(), "val": split(3)}).save_to_disk(tmp_path / "others")
    assert len(load("hf:others", tmp_path).test) == 3


def test_a_folder_of_files_and_one_file(tmp_path: Path) -> None:
    rows = [
        json.dumps({"said": text, "kind": NAMES[label]}) for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "some" / "test.jsonl").write_text("\n".join(rows[:2]), encoding="utf-8")
    dataset = load("hf:some", tmp_path, text="said", label="kind")
    assert dataset.classes == ("blame", "praise")
    assert texts_of(dataset) == [*EXPECTED, *EXPECTED[:2]]
    dataset = load("hf:some/train.jsonl", tmp_path, text="said", label="kind")
    assert (len(dataset.train), len(dataset.test)) == (17, 3)


def test_pictures_with_labels(tmp_path: Path) -> None:
    shades = [Image.new("L", (5, 4), 10 * number) for number in range(10)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"image": shades, "label": LABELS[:10]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "digits")
    dataset = load("hf:digits", tmp_path, size=2, channels=1)
    assert (dataset.kind, dataset.classes) == ("images", tuple(NAMES))
    assert dataset.train["image"].shape == (9, 1, 2, 2)
    shade = torch.cat([half["image"][:, 0, 0, 0] for half in (dataset.train, dataset.test)])
    label = torch.cat([half["label"] for half in (dataset.train, dataset.test)])
    assert sorted(shade.tolist()) == [*range(0, 100, 10)]
    assert torch.equal(label, shade.long() // 10 % 2)


def test_numbers_of_classes_are_one_in_both_halves(tmp_path: Path) -> None:
    halves = {}
    for half, labels in (("train", [0, 1, 2]), ("test", [0.0, 1.0, 2.0])):
        kind = datasets.Value("float64" if half == "test" else "int64")
        features = datasets.Features({"image": datasets.Image(), "label": kind})
        rows = {"image": [Image.new("L", (2, 2))] * 3, "label": labels}
        halves[half] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(halves).save_to_disk(tmp_path / "digits")
    dataset = load("hf:digits", tmp_path)
    assert dataset.classes == ("0", "1", "2")
    assert dataset.test["label"].tolist() == [0, 1, 2]


def test_a_picture_of_32_bits_is_refused_by_its_row(tmp_path: Path) -> None:
    shades = [Image.new("L", (2, 2)), Image.new("F", (2, 2), 0.5)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": shades, "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "scans")
    with pytest.raises(
        UserError, match=r"row 2: image must be a picture that can be read \(its pixels are nu"
    ):
        load("hf:scans", tmp_path)


def test_a_picture_that_lies_elsewhere_is_not_read(tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    Image.new("L", (4, 4), 7).save(other)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    cells = pyarrow.array([{"bytes": None, "path": str(other)}] * 4)
    table = pyarrow.table({"image": cells, "label": ["a", "b"] * 2}).cast(features.arrow_schema)
    (tmp_path / "own").mkdir()
    parquet.write_table(
        table.replace_schema_metadata(features.arrow_schema.metadata), tmp_path / "own" / "a.parquet"
    )
    with pytest.raises(UserError, match=r"image must be a picture in the dataset itself, not a file elsewh"):
        load("hf:own", tmp_path)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "own" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(tmp_path / "own" / "ab"[number % 2] / f"{number}.png")
    dataset = load("hf:own", tmp_path, size=2, channels=1)
    shades = torch.cat([half["image"][:, 0, 0, 0] for half in (dataset.train, dataset.test)])
    assert sorted(shades.tolist()) == [0, 1, 2, 3]


def test_a_picture_of_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"image": [Image.new("L", (5, 5))] * 2, "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "own")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"row 1: image must be a picture that can be read, got 'Image size"):
        load("hf:own", tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        "data_files: ../x.csv",
        "data_files: [{split: train, path: [a.csv, /etc/x.csv]}]",
        "data_files: file:/etc/x.csv",
        "data_files: https://example.org/x.csv",
        "data_dir: ..",
        "data_files: linked/x.csv",
    ],
)
def test_a_folder_that_names_files_elsewhere(tmp_path: Path, said: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "linked").symlink_to(tmp_path)
    for place in (tmp_path / "x.csv", tmp_path / "own" / "a.csv"):
        place.write_text("text,label\na,b\nc,d\n", encoding="utf-8")
    readme = f"---\nconfigs:\n- config_name: default\n  {said}\n---\n"
    for name in ("README.md", ".huggingface.yaml"):
        text = readme if name == "README.md" else readme.replace("---\n", "")
        (tmp_path / "own" / name).write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="own must name files below itself, which are no links to folder"):
            load("hf:own", tmp_path)
        (tmp_path / "own" / name).unlink()
    (tmp_path / "own" / "README.md").write_text(readme.replace(said, "data_files: ./a.csv"), encoding="utf-8")
    assert len(load("hf:own", tmp_path).train) == 1


def test_a_saved_dataset_that_names_files_elsewhere(tmp_path: Path) -> None:
    split().save_to_disk(tmp_path / "other")
    split().save_to_disk(tmp_path / "own")
    state = json.loads((tmp_path / "own" / "state.json").read_text(encoding="utf-8"))
    state["_data_files"][0]["filename"] = f"../other/{state['_data_files'][0]['filename']}"
    (tmp_path / "own" / "state.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(UserError, match="own must name files below itself"):
        load("hf:own", tmp_path)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "dataset_dict.json").write_text('{"splits": ["../other"]}', encoding="utf-8")
    with pytest.raises(UserError, match="sets must name files below itself"):
        load("hf:sets", tmp_path)


def test_tagged_sentences(tmp_path: Path) -> None:
    names = ["O", "B-LOC", "I-LOC"]
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    rows = {"tokens": [["in", "New", "York"], ["so"], []] * 4, "ner_tags": [[0, 1, 2], [0], []] * 4}
    split = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(tmp_path / "news")
    dataset = load("hf:news", tmp_path)
    assert (dataset.kind, len(dataset.train)) == ("tagged-sentences", 8)
    assert dataset.info["tags"] == ("O", "B-LOC", "I-LOC")
    assert dataset.train["tag"][0].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"row 1: tokens must be tags such as O, B-PER and I-PER, got 'in'"):
        load("hf:news", tmp_path, tags="tokens", words="ner_tags")


def test_options_of_another_kind(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": split()}).save_to_disk(tmp_path / "letters")
    with pytest.raises(UserError, match="must be those of a table, as the columns are, got size"):
        load("hf:letters", tmp_path, size=8)
    with pytest.raises(UserError, match="must be those of pictures, as the columns are, got window"):
        load("hf:letters", tmp_path, image="text", window=8)
    with pytest.raises(UserError, match="must be those of tagged sentences, as the columns are, got label"):
        load("hf:letters", tmp_path, words="text", label="label")
    with pytest.raises(UserError, match="row 1: text must be a picture, as a feature of the type Image is"):
        load("hf:letters", tmp_path, image="text")


def test_series_of_a_dataset(tmp_path: Path) -> None:
    rows = {"time": [*range(20)], "value": [*np.arange(20.0)], "client": ["a"] * 20}
    sales = datasets.Dataset.from_dict(rows)
    datasets.DatasetDict({"train": sales, "test": sales}).save_to_disk(tmp_path / "sales")
    assert load("hf:sales", tmp_path, window=5).test["target"].tolist() == [16, 17, 18, 19]


def test_labels_that_stand_for_none(tmp_path: Path) -> None:
    test = split(2).map(lambda row: {**row, "label": -1})
    datasets.DatasetDict({"train": split(), "test": test}).save_to_disk(tmp_path / "glue")
    with pytest.raises(
        UserError, match="glue \\(test\\) has a class '-1', and says that there are praise, blame: hold out"
    ):
        load("hf:glue", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.jsonl", b"", "a.jsonl is empty: give it rows, or leave it out$"),
        ("a.csv", b"", "a.csv is empty: give it rows, or leave it out$"),
        (
            "a.jsonl",
            b'{"text" 1}',
            r"'hf:a.jsonl' cannot be loaded \(ArrowInvalid: JSON parse error: Missing",
        ),
        ("a.csv", b"text,label\n\xff,1", r"'hf:a.csv' cannot be loaded \(UnicodeDecodeError: 'utf-8' codec"),
    ],
)
def test_what_cannot_be_loaded_says_why_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: bytes, line: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=line):
        load(f"hf:{name}", tmp_path)
    assert capfd.readouterr().err == ""


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *to, **_: asked.append(to))
    monkeypatch.setattr(socket.socket, "connect", lambda *to: asked.append(to))
    with pytest.raises(
        UserError, match=r"must be a folder or a file that is there, got .*/x; a name of the hub"
    ):
        load("hf:x", tmp_path)
    with pytest.raises(UserError, match=r"must be a folder or a file that is there, got /no/such$"):
        load_dataset(TaskConfig(dataset="hf:/no/such"))
    with pytest.raises(
        UserError, match=r"'hf:x' cannot be loaded \(.*\); it is fetched where download is true"
    ):
        load_dataset(TaskConfig(dataset="hf:x"))
    assert not asked
    with pytest.raises(UserError, match=r"'hf:x' cannot be loaded \(.*\); check its name and the network$"):
        load_dataset(TaskConfig(dataset="hf:x", download=True))
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a.txt must end in .csv, .json, .jsonl, .parquet, or name a folder"):
        load("hf:a.txt", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"'hf:empty' cannot be loaded \(EmptyDatasetError"):
        load("hf:empty", tmp_path)


@pytest.mark.parametrize(("name", "package"), [("parquet:a.parquet", "pyarrow"), ("hf:a", "datasets")])
def test_a_package_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr("models.data.table_arrow.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs a package that is not here: pip install 'polyfed\[tables\]'"):
        load(name, tmp_path)
