"""Dialogues of one's own. tests/docs/test_wrong_data.py has what is refused, by the lines of docs/data.md."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset
from models.data.parallel_text import read


def load(path: Path, options: str = "") -> Dataset:
    load_dataset.cache_clear()  # a test may write the files anew
    return load_dataset(
        TaskConfig(dataset=f"dialogue:{path}", dataset_options=options, validation_fraction=0.0)
    )


def rows(data: Examples) -> list[tuple[str, str]]:
    return [*zip(read(data["source"]), read(data["target"]), strict=True)]


def write(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, objects)), encoding="utf-8")
    return path


def test_a_file_whose_objects_say_whose_they_are(tmp_path: Path) -> None:
    talks = [{"turns": [f"ask {n}", f"tell {n}"], "client": "BA"[n % 2]} for n in range(100)]
    dataset = load(write(tmp_path / "talks.jsonl", *talks))
    train, test = rows(dataset.train), rows(dataset.test)
    assert sorted(train + test) == sorted((f"ask {n}", f"tell {n}") for n in range(100))
    assert 2 <= len(test) <= 20
    assert dataset.client_names == ("A", "B")
    assert dataset.client is not None
    assert all(
        "AB"[1 - int(said[4:]) % 2] == "AB"[who] for (said, _), who in zip(train, dataset.client, strict=True)
    )
    # Another order holds out the same dialogues.
    again = load(write(tmp_path / "again.jsonl", *talks[::-1]))
    assert set(rows(again.test)) == set(test)


def test_turns_may_be_objects_and_names_are_options(tmp_path: Path) -> None:
    def said(*turns: str) -> list[dict[str, str]]:
        return [{"role": "any", "content": turn} for turn in turns]

    path = tmp_path / "chat.json"
    path.write_text(
        json.dumps([{"messages": said(f"a{n}", f"b{n}", f" c{n}\nd ")} for n in range(30)]), encoding="utf-8"
    )
    dataset = load(path, "turns = 'messages', text = 'content'")
    assert dataset.client is None
    assert {len(context.split("\x1e")) for context, _ in rows(dataset.train)} == {1, 2}
    assert any(reply.startswith("c") and reply.endswith("\nd") for _, reply in rows(dataset.train))


def test_a_folder_of_files_is_one_client_each_and_test_is_held_out_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "ann.jsonl", {"turns": ["a", "b"]}, {"turns": ["c", "d"]})
    write(tmp_path / "bob.json", {"turns": ["e", "f"]})
    write(tmp_path / "test.jsonl", {"turns": ["a", "b"]}, {"turns": ["x", "y"]})
    write(tmp_path / "valid.jsonl", {"turns": ["never", "seen"]})
    write(tmp_path / ".hidden.jsonl", {"turns": ["nobody", "knows"]})
    dataset = load(tmp_path)
    assert dataset.client_names == ("ann", "bob")
    assert rows(dataset.train) == [("a", "b"), ("c", "d"), ("e", "f")]
    assert rows(dataset.test) == [("a", "b"), ("x", "y")]
    assert dataset.info["known"] == 0


def test_longer_turns_are_left_out_where_one_says_so(tmp_path: Path) -> None:
    talks = [{"turns": [f"ask {n}", f"tell {n}", "long " * 9 + str(n), f"and {n}"]} for n in range(30)]
    path = write(tmp_path / "talks.jsonl", *talks)
    with pytest.raises(UserError, match=r"line 1: a turn has 46 bytes, more than max_bytes \(20\)"):
        load(path, "max_bytes = 20")
    dataset = load(path, "max_bytes = 20, skip_longer = true")
    assert dataset.info["skipped"] == 60
    assert all(reply.startswith("tell") for _, reply in rows(dataset.train) + rows(dataset.test))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("context_turns = 0", "context_turns must be >= 1, got 0"),
        ("max_bytes = 0", "max_bytes must be >= 1, got 0"),
        ("test_fraction = 1.0", "test_fraction must be > 0 and < 1, got 1.0"),
        ("client = 'owner'", "needs the columns turns, owner, and lacks owner"),
    ],
)
def test_options_that_are_refused(options: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(write(tmp_path / "talks.jsonl", {"turns": ["a", "b"]}), options)


@pytest.mark.parametrize(
    ("turn", "message"), [("a\x1eb", "without the character 0x1e"), ("\ud800", "of whole characters")]
)
def test_signs_that_no_turn_has(turn: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"line 1: turns must be {message}, got"):
        load(write(tmp_path / "talks.jsonl", {"turns": ["a", turn]}))


def test_a_folder_with_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", {"turns": ["a", "b"]})
    with pytest.raises(UserError, match="must hold a file to train on beside test: add one"):
        load(tmp_path)
