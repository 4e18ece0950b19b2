"""What a dataset may be called, and what becomes of files that cannot be read."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.data_files import data_files
from models.data.dataset import Dataset
from models.data.datasets import DATASETS, find_source, load_dataset

MODULE = """
import csv, json, zipfile
from pathlib import Path

import torch
from models import Dataset, Examples, Source, TaskConfig, source_path

def dataset(name, lines):
    rows = Examples({"line": torch.arange(lines)})
    return Dataset(name, "lines", rows, rows)

def fixed(config: TaskConfig, lines: int = 3) -> Dataset:
    return dataset(config.dataset, lines)

def from_file(config: TaskConfig) -> Dataset:
    return dataset(config.dataset, len(source_path(config).read_text(encoding="utf-8").splitlines()))

def with_need(config: TaskConfig, lines) -> Dataset:
    return dataset(config.dataset, lines)

def as_json(config):
    return json.loads(source_path(config).read_text(encoding="utf-8"))

def zipped(config):
    return zipfile.ZipFile(source_path(config))

def offline(config):
    raise ConnectionError("no route to host")

FIXED = Source("lines", fixed, packaged=True)
LINES = Source("lines", from_file, takes="FILE")
NEEDY = Source("lines", with_need)
JSON = Source("lines", as_json, takes="FILE")
ZIP = Source("lines", zipped, takes="FILE")
OFFLINE = Source("lines", offline)
OLD = Source("lines", from_file)
GONE = Source("lines", fixed, files=lambda config: [Path(config.data_dir, "gone.bin")])
NUMBER = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write a module of sources; returns what installs it as a package with these entry points."""
    (tmp_path / "note_sources.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "note_sources", raising=False)
    load_dataset.cache_clear()

    def install(entry_points: str) -> None:
        info = tmp_path / "notes-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: notes\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[polyfed.datasets]\n{entry_points}\n", encoding="utf-8")

    return install


def load(name: str, **options: str) -> Dataset:
    return load_dataset(TaskConfig(dataset=name, **options, validation_fraction=0.0))  # type: ignore[arg-type]


def refused(name: str, **options: str) -> str:
    with pytest.raises(UserError) as error:
        load(name, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "a:b.txt"  # a path may hold a colon
    path.write_text("one\ntwo\n", encoding="utf-8")
    return path


def test_a_source_of_a_module_needs_no_entry_point(notes: Path) -> None:
    assert len(load("note_sources:FIXED").train) == 3
    assert len(load("note_sources:FIXED", dataset_options="lines = 5").train) == 5
    assert len(load(f"note_sources:LINES:{notes}").train) == 2
    below = TaskConfig(dataset=f"note_sources:LINES:{notes.name}", data_dir=str(notes.parent))
    assert len(load_dataset(below).train) == 2
    assert [file.name for file in data_files(below)] == ["a:b.txt"]


def test_an_entry_point_has_a_plain_name_whether_or_not_something_follows(
    module: Callable[[str], None], notes: Path
) -> None:
    module("fixed = note_sources:FIXED\nnotes = note_sources:LINES\nold: = note_sources:OLD")
    assert len(load("fixed").train) == 3
    assert len(load(f"notes:{notes}").train) == len(load(f"old:{notes}").train) == 2
    assert refused("notes") == "dataset must be 'notes:FILE', got 'notes'"
    assert refused("fixed:more") == "dataset must be 'fixed', got 'fixed:more'"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits:8", "dataset must be 'digits', got 'digits:8'"),
        ("digits:", "dataset must be 'digits', got 'digits:'"),
        ("text:", "dataset must be 'text:DIR', got 'text:'"),
        ("cvs:/data/prices.csv", "unknown dataset 'cvs': did you mean csv?"),
        ("note_sources:LINES", "dataset must be 'note_sources:LINES:FILE', got 'note_sources:LINES'"),
        ("note_sources:LINES:", "dataset must be 'note_sources:LINES:FILE', got 'note_sources:LINES:'"),
        ("note_sources:FIXED:a", "dataset must be 'note_sources:FIXED', got 'note_sources:FIXED:a'"),
        ("note_sources:LINES:a", "after 'LINES:' dataset must have an absolute path, or a path relative to"),
        ("note_sources:NUMBER", "dataset 'note_sources:NUMBER' must be a models.Source, and it is 3"),
        ("note_sources:NONE", "dataset 'note_sources:NONE' cannot be imported: module 'note_sources' has no"),
        ("no_such:NAME", "dataset 'no_such:NAME' cannot be imported: No module named 'no_such'"),
        ("note_sources:NEEDY", "dataset note_sources:NEEDY needs the option 'lines': set it"),
    ],
)
def test_names_that_are_refused(name: str, message: str) -> None:
    assert refused(name).startswith(message)


def test_a_name_that_is_known_is_no_module() -> None:
    assert find_source("csv:NAME") is DATASETS["csv"]


def test_files_that_cannot_be_read_are_a_line_that_names_them(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing.txt", tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe{")
    advice = "; check that its files are there, whole and may be read"
    for name, reason in (
        (f"note_sources:LINES:{missing}", f"{missing}: FileNotFoundError (No such file or directory)"),
        (f"note_sources:LINES:{tmp_path}", f"{tmp_path}: IsADirectoryError (Is a directory)"),
        (f"note_sources:ZIP:{binary}", f"{binary}: BadZipFile (File is not a zip file)"),
        ("note_sources:OFFLINE", "ConnectionError (no route to host)"),
    ):
        assert refused(name) == f"dataset {name!r} cannot be read: {reason}{advice}"
    assert f"{binary}: UnicodeDecodeError" in refused(f"note_sources:LINES:{binary}")
    binary.write_text("{", encoding="utf-8")
    assert f"{binary}: JSONDecodeError" in refused(f"note_sources:JSON:{binary}")


def test_files_that_are_gone_when_they_are_hashed_are_a_line_too(tmp_path: Path) -> None:
    config = TaskConfig(dataset="note_sources:GONE", data_dir=str(tmp_path))
    with pytest.raises(UserError) as error:
        list(data_files(config))
    gone = f"{tmp_path}/gone.bin: FileNotFoundError (No such file or directory)"
    assert str(error.value).startswith(f"dataset 'note_sources:GONE' cannot be read: {gone}; check that")
