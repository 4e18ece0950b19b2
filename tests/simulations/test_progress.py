"""The progress bar over metrics that somebody else writes."""

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from server.run_folder import RunFolder
from simulations.runtime.progress import PAUSE, RoundProgress


def rows(first: int, last: int, seconds: float = 1.0) -> str:
    return "".join(
        json.dumps({"server_round": number, "train": {"loss": seconds}, "central": {}}) + "\n"
        for number in range(first, last + 1)
    )


def look() -> None:
    """Let the follower look at the file once or twice."""
    time.sleep(2.5 * PAUSE)


@pytest.fixture
def broken_threads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    caught: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", caught.append)
    return caught


def test_it_follows_the_rounds_and_waits_for_the_end_of_a_line(
    tmp_path: Path, broken_threads: list[Any]
) -> None:
    console = Console(file=io.StringIO(), width=120)
    with RoundProgress(tmp_path, 5, console) as progress:
        look()  # no file yet
        failures = '"failures": [{"client": 1, "error": "ü"}, {"client": 2, "error": "no"}]'
        line = f'{{"server_round": 2, "train": {{"loss": 1.0}}, {failures}}}\n'.encode()
        half = line.index(b"\xbc")  # inside a character
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(rows(0, 1).encode() + line[:half])
            file.flush()
            look()
            assert progress.line.bar.tasks[0].completed == 1
            file.write(line[half:])
        look()
        assert progress.line.bar.tasks[0].completed == 2
        assert progress.line.bar.tasks[0].fields["shown"] == "2 failed  train loss 1"
        with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(rows(3, 5, seconds=0.25))
    assert progress.line.bar.tasks[0].completed == 5  # the last line is read after the run has ended
    assert progress.line.bar.tasks[0].fields["shown"] == "train loss 0.25"
    assert not broken_threads


def test_it_follows_a_resumed_run_that_drops_rounds_and_does_them_again(
    tmp_path: Path, broken_threads: list[Any]
) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(rows(0, 8), encoding="utf-8")
    run = RunFolder(tmp_path, {}, resume=False)
    with RoundProgress(tmp_path, 10, Console(file=io.StringIO())) as progress:
        look()  # Flower takes long to start: all old rounds are seen
        assert progress.line.bar.tasks[0].completed == 8
        run.rewind(5)
        look()
        assert progress.line.bar.tasks[0].completed == 5
        with metrics.open("a", encoding="utf-8") as file:
            file.write(rows(6, 10, seconds=1.2345678))
    assert progress.line.bar.tasks[0].completed == 10
    assert not broken_threads
    run.close()


def test_it_notices_where_all_dropped_rounds_are_done_again_between_two_looks(
    tmp_path: Path, broken_threads: list[Any]
) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(rows(0, 8), encoding="utf-8")
    run = RunFolder(tmp_path, {}, resume=False)
    with RoundProgress(tmp_path, 12, Console(file=io.StringIO())) as progress:
        look()
        run.rewind(5)
        with metrics.open("a", encoding="utf-8") as file:
            file.write(rows(6, 12, seconds=1.2345678))
    assert progress.line.bar.tasks[0].completed == 12
    assert not broken_threads
    run.close()
