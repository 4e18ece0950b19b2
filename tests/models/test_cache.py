"""Parsed datasets that are kept: the same dataset as a parsed one, or none at all."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision import datasets as torchvision_datasets

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data import cache, cache_key, dataset_file
from models.data.dataset import Dataset, Examples
from models.data.datasets import DATASETS, load_dataset
from models.data.fingerprint import data_sha256
from models.data.source import Source
from models.data.torchvision_files import ARCHIVES

SERIES = "client,time,value\n" + "".join(f"{c},{t},{(t * t + c) % 7}\n" for c in (1, 2) for t in range(60))
CONLL = "-DOCSTART- O\n\nAda B-PER\nran O\n\n-DOCSTART- O\n\nParis B-LOC\n\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a cache that is the test's own."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    load_dataset.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Dataset]:
    """Return a function that loads a dataset as another process would; it has counted its parses."""
    return Toy(monkeypatch)


class Toy:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parses = 0
        monkeypatch.setitem(DATASETS, "toy", Source("toys", self.parse, packaged=True, parsed_with=()))

    def parse(self, config: TaskConfig, size: int = 3) -> Dataset:
        self.parses += 1
        x = torch.arange(size * 4).reshape(size, 4)
        return Dataset(
            name="toy",
            kind="toys",
            train=Examples({"x": x, "transposed": x.t().contiguous().t(), "flag": x[:, 0] > 1}),
            test=Examples({"x": x[:1].double() / 3}),
            client=x[:, 0].numpy() // 4,
            client_names=tuple("ÄBCDEFGH"[:size]),
            info={"tuple": ("a", 1, None), "list": [1.5, True], "dict": {"k": (1,)}, "whole": 2, "real": 2.0},
        )

    def __call__(self, **options: Any) -> Dataset:
        load_dataset.cache_clear()
        given = ", ".join(f"{name} = {value}" for name, value in options.items())
        return load_dataset(TaskConfig(dataset="toy", dataset_options=given))


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def assert_same(one: Dataset, other: Dataset) -> None:
    for half in ("train", "test"):
        ours, theirs = getattr(one, half).columns, getattr(other, half).columns
        assert list(ours) == list(theirs)
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            assert torch.equal(ours[name], theirs[name])
    assert (one.client is None) == (other.client is None)
    if one.client is not None and other.client is not None:
        assert one.client.dtype == other.client.dtype
        np.testing.assert_array_equal(one.client, other.client)
    for field in ("name", "kind", "label", "classes", "client_names", "ordered", "info"):
        assert repr(getattr(one, field)) == repr(getattr(other, field))  # 2 is not 2.0, (1,) is not [1]
    assert data_sha256(one) == data_sha256(other)


@pytest.mark.parametrize("name", ["digits", "pii", "csv", "conll"])
def test_a_kept_dataset_is_the_parsed_one(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(SERIES, encoding="utf-8")
    for half in ("train", "test"):
        (tmp_path / f"{half}.txt").write_text(CONLL, encoding="utf-8")
    place = {"csv": f"csv:{tmp_path}/prices.csv", "conll": f"conll:{tmp_path}"}
    config = TaskConfig(dataset=place.get(name, name))
    parsed = load_dataset(config)
    assert entry(folder).stat().st_size > dataset_file.num_bytes(parsed)
    load_dataset.cache_clear()
    assert_same(load_dataset(config), parsed)


def test_numbers_of_rows_in_any_layout_are_kept(toy: Toy) -> None:
    told = replace(toy(), client=None)
    rows = np.arange(len(told.train))
    for group in (rows[::-1], rows.astype(">i8"), rows.astype(np.uint8)):
        kept = dataset_file.dataset_of(dataset_file.tensors_of(replace(told, group=group)))
        assert kept.group is not None
        assert kept.group.tolist() == group.tolist()


def test_a_kept_dataset_is_mapped_and_not_parsed(toy: Toy, folder: Path) -> None:
    parsed = toy()
    assert_same(toy(), parsed)
    assert toy.parses == 1
    kept = toy()
    assert (
        str(entry(folder)) in Path("/proc/self/maps").read_text(encoding="utf-8") or sys.platform != "linux"
    )
    assert not kept.train["transposed"].is_set_to(parsed.train["transposed"])


def test_writing_into_a_column_reaches_neither_the_file_nor_another_process(toy: Toy, folder: Path) -> None:
    toy()
    before = entry(folder).read_bytes()
    kept = toy()
    kept.train["x"].fill_(-1)
    assert kept.client is not None
    kept.client[:] = -1
    assert entry(folder).read_bytes() == before
    assert_same(toy(), toy.parse(TaskConfig()))


def test_another_option_is_another_dataset(toy: Toy, folder: Path) -> None:
    assert len(toy(size=2).train) == 2
    assert len(toy(size=3).train) == 3
    assert len(toy(size=2).train) == 2
    assert toy.parses == 2
    assert len(list(folder.iterdir())) == 2


def test_what_the_loader_is_told_leaves_nothing_else_to_depend_on(toy: Toy) -> None:
    seen = []
    parse = toy.parse

    def load(config: TaskConfig) -> Dataset:
        seen.append(config)
        return parse(config)

    DATASETS["toy"] = Source("toys", load, packaged=True, parsed_with=())  # type: ignore[index]
    load_dataset(TaskConfig(dataset="toy", seed=7, num_clients=3, data_dir="/data", download=True))
    assert seen == [TaskConfig(dataset="toy", data_dir="/data", download=True)]


def test_a_source_that_says_nothing_is_parsed_anew(folder: Path) -> None:
    load_dataset(TaskConfig(dataset="sine"))
    assert not folder.exists()


@pytest.mark.parametrize("changed", ["package", "code", "python"])
def test_another_version_is_parsed_anew(toy: Toy, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    toy()
    version = cache_key.version
    if changed == "package":
        monkeypatch.setattr(cache_key, "version", lambda name: version(name) + ".post1")
    elif changed == "code":
        monkeypatch.setattr(cache_key, "_code_of_this_folder", lambda: "other")
    else:
        monkeypatch.setattr(sys, "version_info", (3, 99))
    toy()
    assert toy.parses == 2


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    config = TaskConfig(dataset=f"csv:{path}")
    path.write_text(SERIES, encoding="utf-8")
    times = path.stat()
    first = load_dataset(config)
    path.write_text(SERIES.replace(",59,", ",60,"), encoding="utf-8")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # the size and the time tell nothing
    load_dataset.cache_clear()
    assert load_dataset(config).test["time"][-1] == 60
    assert first.test["time"][-1] == 59


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(SERIES, encoding="utf-8")
    source = DATASETS["csv"]

    def load(config: TaskConfig) -> Dataset:
        dataset = source.load(config)
        path.write_text(SERIES + "3,1,1\n", encoding="utf-8")
        return dataset

    monkeypatch.setitem(DATASETS, "csv", Source("series", load, takes="FILE", parsed_with=()))
    load_dataset(TaskConfig(dataset=f"csv:{path}"))
    assert not folder.exists()


def test_files_too_large_to_be_hashed_are_told_apart_by_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.hashed_files.MOST_BYTES", 10)
    path = tmp_path / "prices.csv"
    path.write_text(SERIES, encoding="utf-8")
    config = TaskConfig(dataset=f"csv:{path}")
    key = cache_key.cache_key(DATASETS["csv"], config, config, {})
    assert key == cache_key.cache_key(DATASETS["csv"], config, config, {})
    os.utime(path, ns=(0, 0))
    assert key != cache_key.cache_key(DATASETS["csv"], config, config, {})


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def flip_in_header(path: Path) -> None:
    flip(path, path.read_bytes().index(b'"train/flag"') + 8)


def flip_in_json(path: Path) -> None:
    flip(path, path.read_bytes().index(b'"ordered"') + 2)


def forge(path: Path, rest: bytes) -> None:
    """Write an entry whose hash is right, with something else beside its columns."""
    with safe_open(path, "pt") as file:
        key = file.metadata()["key"]
    tensors = load_file(path)
    tensors["dataset"] = torch.frombuffer(bytearray(rest), dtype=torch.uint8)
    save_file(tensors, path, {"key": key, "sha256": dataset_file._digest(key, tensors)})


def no_json(path: Path) -> None:
    forge(path, b"{")


def other_json(path: Path) -> None:
    forge(path, b"[1, 2]")


def other_kind(path: Path) -> None:
    rest = json.loads(load_file(path)["dataset"].numpy().tobytes())
    forge(path, json.dumps({**rest, "kind": "images"}).encode())


def other_entry(path: Path) -> None:
    """Put there what was kept under another key."""
    with safe_open(path, "pt") as file:
        key = file.metadata()["key"] + " "
    tensors = load_file(path)
    save_file(tensors, path, {"key": key, "sha256": dataset_file._digest(key, tensors)})


def no_header(path: Path) -> None:
    save_file(load_file(path), path)


def pickled(path: Path) -> None:
    torch.save({"x": torch.zeros(3)}, path)


FAULTS = (
    truncate,
    empty,
    flip,
    flip_in_header,
    flip_in_json,
    no_json,
    other_json,
    other_kind,
    other_entry,
    no_header,
    pickled,
)


@pytest.mark.parametrize("damage", FAULTS)
def test_a_damaged_entry_is_dropped_with_one_line_and_parsed_anew(
    damage: Callable[[Path], None], toy: Toy, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parsed = toy()
    damage(entry(folder))
    assert_same(toy(), parsed)
    assert toy.parses == 2
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{entry(folder)} is damaged (")
    assert "\n" not in line
    toy()
    assert toy.parses == 2  # it was written anew


def test_a_folder_in_the_place_of_an_entry_is_no_error(toy: Toy, folder: Path) -> None:
    toy()
    path = entry(folder)
    path.unlink()
    path.mkdir()
    assert_same(toy(), toy.parse(TaskConfig()))


@pytest.mark.parametrize("place", ["file", "/proc/no-such-folder"])
def test_a_folder_that_cannot_be_written_to_is_a_line(
    place: str,
    toy: Toy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / place))
    caplog.set_level("INFO")
    assert len(toy().train) == 3
    (record,) = caplog.records
    assert record.getMessage().startswith(f"toy is not kept for the next run in {tmp_path / place} (")


def test_info_that_json_cannot_hold_is_not_kept(
    toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(TypeError):
        dataset_file._plain({"array": np.zeros(1)})
    dataset = toy.parse(TaskConfig())
    strange = Dataset("strange", "toys", dataset.train, dataset.test, info={"array": np.zeros(1)})
    monkeypatch.setitem(
        DATASETS, "toy", Source("toys", lambda config: strange, packaged=True, parsed_with=())
    )
    assert load_dataset(TaskConfig(dataset="toy")) is strange
    assert not list(folder.iterdir())
    assert "info holds a ndarray" in caplog.text


def test_the_cache_can_be_off_and_a_relative_folder_is_refused(
    toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, "off")
    toy()
    toy()
    assert toy.parses == 2
    assert not folder.exists()
    monkeypatch.setenv(cache.VARIABLE, "cache")
    with pytest.raises(UserError, match="POLYFED_CACHE must be an absolute folder"):
        toy()


def test_without_the_variable_it_is_the_platforms_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setattr(cache, "user_cache_path", lambda name: tmp_path / name)
    assert cache.cache_folder() == tmp_path / "polyfed" / "datasets"


def test_what_was_not_read_for_longest_gives_way(
    toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(size=2)
    first = entry(folder)
    monkeypatch.setattr(cache, "MOST_BYTES_IN_ALL", 2.5 * first.stat().st_size)
    toy(size=3)
    (second,) = set(folder.iterdir()) - {first}
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    toy(size=2)  # is now the newest
    toy(size=4)
    assert first.exists()
    assert not second.exists()
    monkeypatch.setattr(cache, "MOST_BYTES_IN_ALL", 0)
    toy(size=5)
    assert len(list(folder.iterdir())) == 1  # what was just written stays


def test_what_is_too_large_is_not_kept(toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 10)
    toy()
    assert not folder.exists()


def test_leftovers_of_killed_processes_go_and_unfinished_files_stay(toy: Toy, folder: Path) -> None:
    folder.mkdir()
    old, new, other = (folder / name for name in ("a.safetensors.1-x", "b.safetensors.2-y", "notes.txt"))
    for path in (old, new, other):
        path.write_text("", encoding="utf-8")
    os.utime(old, (1, 1))
    toy()
    assert not old.exists()
    assert new.exists()
    assert other.exists()


def test_clearing_frees_what_is_kept_and_nothing_else(toy: Toy, folder: Path) -> None:
    toy()
    size = entry(folder).stat().st_size
    other = folder / "notes.txt"
    other.write_text("mine", encoding="utf-8")
    assert cache.clear() == size
    assert list(folder.iterdir()) == [other]
    assert cache.clear() == 0


WRITER = """
import sys
from models.core.config import TaskConfig
from models.data import cache
from models.data.cache_key import cache_key
from models.data.datasets import DATASETS, load_dataset
config = TaskConfig(dataset="digits")
key = cache_key(DATASETS["digits"], config, config, {})
dataset = load_dataset(config)
sys.stdin.readline()
for _ in range(40):
    cache.keep(key, dataset)
    assert cache.find(key, lambda found: None) is not None
"""


@pytest.mark.slow
def test_two_processes_that_write_at_once_leave_one_whole_entry(folder: Path) -> None:
    python = [sys.executable, "-W", "error::UserWarning", "-c", WRITER]
    writers = [subprocess.Popen(python, stdin=subprocess.PIPE, encoding="utf-8") for _ in range(2)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    entry(folder)  # one file, and no leftovers
    kept = load_dataset(TaskConfig(dataset="digits"))
    assert (len(kept.train), len(kept.validation or ())) == (1293, 144)


def test_the_files_of_torchvision_are_those_that_it_names_itself() -> None:
    for name in ("MNIST", "FashionMNIST"):
        raw = Path(name, "raw")
        resources = [raw / archive for archive, _ in getattr(torchvision_datasets, name).resources]
        assert {archive.with_suffix(""): archive for archive in resources} == ARCHIVES[name]
    cifar = torchvision_datasets.CIFAR10
    names = [name for name, _ in cifar.train_list + cifar.test_list] + [cifar.meta["filename"]]
    assert {Path(cifar.base_folder, name): Path(cifar.filename) for name in names} == ARCHIVES["CIFAR10"]
