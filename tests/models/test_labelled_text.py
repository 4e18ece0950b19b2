"""Labelled texts from tables: what is read as it is written, and the line that says what cannot be read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.toml import quoted
from models.data import labelled_text, large, table, text
from models.data.data_files import data_files
from models.data.dataset import Dataset
from models.data.datasets import find_source, load_dataset
from models.data.held_out import hold_out
from models.data.labelled_text import read_texts
from models.data.labels import labels_of

ROWS = [(f"text {number} ü", "no" if number % 3 else "yes", f"client {number % 2}") for number in range(20)]


def load(name: str, **options: Any) -> Dataset:
    return load_dataset(TaskConfig(dataset=name, dataset_options=quoted(options), validation_fraction=0.0))


def write(
    path: Path, header: str, rows: list[tuple[str, ...]], between: str = ",", encoding: str = "utf-8"
) -> Path:
    lines = [header, *(between.join(row) for row in rows)]
    path.write_text("\n".join(lines), encoding=encoding)
    return path


def read(examples: Any, dataset: Dataset) -> list[tuple[str, str]]:
    names = [dataset.classes[number] for number in examples["label"].tolist()]
    return list(zip(read_texts(examples["text"]), names, strict=True))


def test_columns_that_are_called_so_need_no_options(tmp_path: Path) -> None:
    dataset = load(f"csv:{write(tmp_path / 'a.csv', 'text,label,client', ROWS)}")
    assert (dataset.kind, dataset.label, dataset.classes) == ("labelled-text", "label", ("no", "yes"))
    train, test = (read(half, dataset) for half in (dataset.train, dataset.test))
    assert (len(train), len(test)) == (17, 3)
    assert sorted([*train, *test]) == sorted((text, label) for text, label, _ in ROWS)
    assert dataset.client_names == ("client 0", "client 1")
    of_text = {text: client for text, _, client in ROWS}
    assert dataset.client is not None
    assert [dataset.client_names[number] for number in dataset.client] == [of_text[text] for text, _ in train]


def test_equal_texts_are_on_one_side_on_every_machine(tmp_path: Path) -> None:
    rows = [(f"text {number % 10}", f"{number % 3}") for number in range(200)]
    dataset = load(f"csv:{write(tmp_path / 'a.csv', 'text,label', rows)}")
    train, test = (set(read_texts(half["text"])) for half in (dataset.train, dataset.test))
    assert len(train | test) == 10
    assert test == {"text 6"}
    # Another machine has other rows, in another order and with a longer text.
    longer = load(f"csv:{write(tmp_path / 'b.csv', 'text,label', [*rows[100::-1], ('longer ' * 9, '0')])}")
    assert test <= set(read_texts(longer.test["text"]))
    assert train <= set(read_texts(longer.train["text"]))


def test_about_a_tenth_is_held_out_and_never_none_or_all() -> None:
    train, test = hold_out(f"{number}".encode() for number in range(10_000))
    assert sorted([*train, *test]) == [*range(10_000)]
    assert 900 < len(test) < 1100
    for size in range(2, 30):
        train, test = hold_out([b"%d" % number for number in range(size)])
        assert len(train) + len(test) == size
        assert min(len(train), len(test)) >= 1
    train, test = hold_out([b"alike"] * 20)
    assert (train.tolist(), test.tolist()) == ([*range(2, 20)], [0, 1])
    assert [len(rows) for rows in hold_out([])] == [0, 0]


def test_any_columns_by_name_in_any_encoding(tmp_path: Path) -> None:
    rows = [(text, label, "more", client) for text, label, client in ROWS]
    path = write(tmp_path / "a.csv", "Titel;Thema;Rest;Amt", rows, ";", encoding="latin-1")
    dataset = load(
        f"csv:{path}",
        text=["Titel", "Rest"],
        label="Thema",
        client="Amt",
        encoding="latin-1",
        delimiter=";",
        classes=["yes", "no", "never"],
    )
    assert dataset.classes == ("yes", "no", "never")
    both = [*read(dataset.train, dataset), *read(dataset.test, dataset)]
    assert sorted(both) == sorted((f"{text} more", label) for text, label, _ in ROWS)
    assert dataset.client_names == ("client 0", "client 1")


def test_quotes_that_are_parts_of_texts(tmp_path: Path) -> None:
    rows = [('"Well', "a"), ("plain", "b"), ('he said"', "a"), ('"so" it is', "b"), ('""', "a")]
    path = write(tmp_path / "a.tsv", "text\tlabel", rows, "\t")
    with pytest.raises(UserError, match=r"no row of a CSV file .*; where quotes are .*, set quote = '' in"):
        load(f"csv:{path}", delimiter="\t")
    dataset = load(f"csv:{path}", delimiter="\t", quote="")
    assert sorted([*read(dataset.train, dataset), *read(dataset.test, dataset)]) == sorted(rows)
    with pytest.raises(
        UserError, match="quote must be '\"', or '' where quotes are parts of values, got \"'\""
    ):
        load(f"csv:{path}", quote="'")
    between = write(tmp_path / "b.csv", "text,label", [('"two\nlines, ""one"" text"', "a"), ("x", "b")])
    assert {
        *read_texts(load(f"csv:{between}").train["text"]),
        *read_texts(load(f"csv:{between}").test["text"]),
    } == {'two\nlines, "one" text', "x"}


@pytest.mark.parametrize("as_list", [True, False])
def test_json_lines_and_one_list(tmp_path: Path, as_list: bool) -> None:
    rows = [{"text": text, "label": len(text) % 2 * 10, "more": [1]} for text, _, _ in ROWS]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "a.json").write_text(
        f"[{', '.join(lines)}]" if as_list else "\n".join([*lines, ""]), encoding="utf-8"
    )
    dataset = load(f"json:{tmp_path / 'a.json'}")
    assert dataset.classes == ("0", "10")
    both = [*read(dataset.train, dataset), *read(dataset.test, dataset)]
    assert sorted(both) == sorted((row["text"], str(row["label"])) for row in rows)
    assert dataset.client is None


def test_a_folder_holds_the_halves(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label,client", ROWS)
    write(tmp_path / "valid.csv", "text,label", [("a", "yes"), ("longer than all others by far", "no")])
    dataset = load(f"csv:{tmp_path}", text="text")
    assert len(dataset.train) == 20
    assert read(dataset.test, dataset) == [("a", "yes"), ("longer than all others by far", "no")]
    assert [each.name for each in data_files(TaskConfig(dataset=f"csv:{tmp_path}"))] == [
        "train.csv",
        "valid.csv",
    ]


def test_a_number_is_one_class_however_it_is_written(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label", [("a", "0"), ("b", "1"), ("c", " 2")])
    write(tmp_path / "test.csv", "text,label", [("d", "0.0"), ("e", "1.0"), ("f", "1.5")])
    dataset = load(f"csv:{tmp_path}")
    assert dataset.classes == ("0", "1", "2", "1.5")
    assert dataset.test["label"].tolist() == [0, 1, 3]
    assert load(f"csv:{tmp_path}", classes=["0.0", "1.0", "2.0", "1.5"]).classes == ("0", "1", "2", "1.5")
    rows = [{"text": "a", "label": label} for label in (1, 1.0, "1.0", True, "true", -1.0, "-1")]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    assert load(f"json:{tmp_path / 'a.json'}").classes == ("1", "-1", "true")


@pytest.mark.parametrize("name", ["val", "dev"])
def test_the_held_out_rows_by_other_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train.csv", "text,label", [("a", "yes"), ("b", "no")])
    write(tmp_path / f"{name}.csv", "text,label", [("c", "yes"), ("d", "no")])
    dataset = load(f"csv:{tmp_path}")
    assert read(dataset.test, dataset) == [("c", "yes"), ("d", "no")]


def test_clients_are_named_as_they_are_read(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 2, "client": " a "}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(
        UserError, match=f"{path}, line 1: client must be filled in, or the row left out, got N"
    ):
        load(f"json:{path}")  # a name that the first object lacks is a column
    rows[0]["client"] = "a"
    path.write_text(json.dumps(rows * 9), encoding="utf-8")
    load_dataset.cache_clear()
    assert load(f"json:{path}").client_names == ("a",)


@pytest.mark.parametrize("label", [{}, {"label": "x"}])
@pytest.mark.parametrize(
    ("client", "why"),
    [
        (None, "filled in, or the row left out, got None"),
        (" ", "filled in, or the row left out, got ' '"),
        (float("nan"), "filled in, or the row left out, got nan"),
        ("a\ud800", "the name of a client, of at most 200 printable characters, got"),
        ("a\nb", "the name of a client, of at most 200 printable characters, got"),
        ("a" * 201, "the name of a client, of at most 200 printable characters, got"),
        ([1], "the name of a client, of at most 200 printable characters, got"),
    ],
)
def test_clients_that_are_none(tmp_path: Path, label: dict[str, str], client: Any, why: str) -> None:
    path = tmp_path / "a.json"
    rows = [{"text": "a", "client": "a", **label}, {"text": "b", "client": client, **label}]
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(UserError, match=f"{path}, line 2: client must be {why}"):
        load(f"json:{path}")


def test_a_row_without_a_text_needs_no_client(tmp_path: Path) -> None:
    rows = [{"text": "a" * 20, "client": "a"}, {"text": " "}, {"text": None}, {"text": float("nan")}]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    dataset = load(f"json:{tmp_path / 'a.json'}")
    assert (dataset.kind, dataset.client_names) == ("text", ("a",))
    assert "".join(text.read(dataset.train["text"]) + text.read(dataset.test["text"])) == "a" * 20


def test_classes_are_in_the_order_in_which_machines_agree_on_them(tmp_path: Path) -> None:
    rows = [(f"{number}", f"{number}") for number in [*range(12)] * 2]
    path = write(tmp_path / "a.csv", "text,label", rows)
    dataset = load(f"csv:{path}")
    labels = find_source("csv:X").labels
    assert labels
    assert dataset.classes == labels.union([[f"{number}"] for number in range(12)]) == labels_of(dataset)
    assert all(text == label for text, label in read(dataset.train, dataset))


def test_what_does_not_fit_into_the_memory_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", "text,label,client", ROWS)
    whole = load(f"csv:{path}")
    monkeypatch.setattr(large, "IN_MEMORY", 10)
    monkeypatch.setattr(table, "PART", 3)
    monkeypatch.setenv("POLYFED_CACHE", str(tmp_path / "cache"))
    made, taken = [], []
    monkeypatch.setattr(labelled_text, "zeros", lambda *of: made.append(large.zeros(*of)) or made[-1])
    monkeypatch.setattr(
        labelled_text, "take_rows", lambda *of: taken.append(large.take_rows(*of)) or taken[-1]
    )
    monkeypatch.setattr(large, "_COPIED", 30)
    load_dataset.cache_clear()
    mapped = load(f"csv:{path}")
    assert [isinstance(each, np.memmap) for each in (*made, *taken)] == [True] * 3  # with both halves
    for half in ("train", "test"):
        for column in ("text", "label"):
            assert torch.equal(getattr(mapped, half)[column], getattr(whole, half)[column])
    assert not list((tmp_path / "cache").glob("tmp*"))  # it has no name


def test_texts_without_classes_are_a_document_a_client(tmp_path: Path) -> None:
    rows = [{"said": f"line {number}" if number % 5 else "", "by": "ba"[number % 2]} for number in range(40)]
    (tmp_path / "train.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = load(f"json:{tmp_path / 'train.json'}", text="said", client="by")
    assert (dataset.kind, dataset.client_names) == ("text", ("a", "b"))
    assert dataset.client is not None
    for number, name in enumerate("ab"):
        whole = "\n".join(row["said"] for row in rows if row["by"] == name and row["said"])
        read_back = "".join(text.read(dataset.train["text"][dataset.client == number]))
        assert read_back == whole[: len(whole) - round(len(whole) / 10)]
    (tmp_path / "test.json").write_text('{"said": "held out"}', encoding="utf-8")
    halves = load(f"json:{tmp_path}", text="said")
    assert text.read(halves.test["text"]) == ["held out"]
    assert halves.client_names == (str(tmp_path / "train.json"),)
    assert "".join(text.read(halves.train["text"])) == "\n".join(row["said"] for row in rows if row["said"])


GOOD = '{"text": "a", "label": "b"}'


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            "",
            {},
            "{} is empty: give rows with the columns text$",
        ),
        (GOOD + '\n{"text": "a"', {}, r"{}, line 2: no JSON object \(.*\): give a line such as"),
        (GOOD + "\n[1]", {}, r"{}, line 2: no JSON object \(it is '\[1\]'\)"),
        (f"[{GOOD},\n 7]", {}, r"{}, line 2: no JSON object \(the list's item 2 is '7'\)"),
        (GOOD + '\n{"text": "a"}', {}, "{}, line 2: label must be filled in, or the row left out, got None"),
        (GOOD + '\n{"text": "a", "label": NaN}', {}, "{}, line 2: label must be filled in, or .*, got nan"),
        (GOOD + '\n{"text": 3, "label": 1}', {}, "{}, line 2: text must be a text, got 3"),
        (GOOD + '\n{"text": "a\\u0000", "label": 1}', {}, "{}, line 2: text must be without a zero byte"),
        (GOOD + '\n{"text": "\\ud800", "label": 1}', {}, "{}, line 2: text must be whole characters"),
        (GOOD + '\n{"text": "a", "label": "b\\nc"}', {}, "{}, line 2: label must be the name of a class, of"),
        (GOOD, {}, "{} must hold two texts or more, got 1"),
        (GOOD, {"label": "topic"}, "{} needs the columns text, topic, and lacks topic: it has 'text,label'"),
        (f"{GOOD}\n{GOOD}", {"classes": ["c"]}, "{} has a class 'b', and classes names c: name it too"),
        (GOOD, {"classes": ["c", "c"]}, "classes must be a list of names such as .*, each once, got"),
        (GOOD, {"text": [1]}, "text must be a column's name, or a list of them, got"),
        (GOOD, {"text": "a", "value": "b"}, "must be of series or of labelled texts, got value and text"),
        (GOOD, {"encoding": "klingon"}, "encoding must be one that Python knows, such as 'utf-8', 'latin-1'"),
        (
            GOOD,
            {"text": "label"},
            r"text, label and client must name different columns, got \['label'\], 'label' and ''",
        ),
        (GOOD, {"text": ["text", "text"]}, "text, label and client must name different columns, got"),
        (GOOD, {"client": "text"}, "must name different columns, got .*'text'.*, 'label' and 'text'"),
        (GOOD, {"encoding": "hex"}, "encoding must be one that Python knows"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message.format(path)) as error:
        load(f"json:{path}", **{"text": "text", **options})
    assert "\n" not in str(error.value)


def test_a_text_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_text, "LONGEST", 10)
    monkeypatch.setattr(labelled_text, "MOST_CLASSES", 2)
    path = write(tmp_path / "a.csv", "text,label", [("a", "b"), ("a" * 11, "b")])
    with pytest.raises(UserError, match=r"line 3: text must be of at most 10 bytes, got 'aaaaaaaaaaa'"):
        load(f"csv:{path}")
    path = write(tmp_path / "b.csv", "text,label", [("a", "1"), ("b", "2"), ("c", "3")])
    with pytest.raises(UserError, match=r"line 4: label must be one of at most 2 classes, got '3'"):
        load(f"csv:{path}")


def test_a_folder_without_the_halves(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label", [("a", "b")])
    with pytest.raises(
        UserError,
        match=r"must hold test.csv or val.csv or valid.csv or .* beside train.csv: add one, or name",
    ):
        load(f"csv:{tmp_path}")


def test_the_news_of_the_bbc() -> None:
    dataset = load("bbc-news")
    assert (len(dataset.train), len(dataset.test)) == (1685, 420)
    assert not set(read_texts(dataset.train["text"])) & set(read_texts(dataset.test["text"]))
    first = read_texts(dataset.train["text"][:1])[0]
    assert first.startswith(
        "Ad sales boost Time Warner profit\nQuarterly profits at US media giant TimeWarner"
    )
