"""The line about the rounds, on terminals of several widths and in a pipe."""

import io
import re

import pytest
from rich.console import Console

from server.run_schema import RoundRecord
from simulations.runtime import round_line
from simulations.runtime.round_line import Clock, RoundLine

CENTRAL = {"loss": 0.2, "accuracy": 0.8123, "another-measure": 1.0}


def record(number: int, *, failed: bool = False) -> RoundRecord:
    found = {
        "server_round": number,
        "train": {} if failed or not number else {"loss": 0.5, "num-examples": 9},
        "central": {} if failed else CENTRAL,
        "failures": ({"client": 1, "error": "no [such] thing"},) if number > 1 else (),
    }
    return RoundRecord.model_validate(found)


def shown(console: Console, *records: RoundRecord) -> str:
    line = RoundLine(20, console, "accuracy")
    for each in records:
        line.show(each, is_new=True)
    with console.capture() as captured:
        console.print(line.bar)
    return re.sub(r"\x1b\[[0-9;]*m", "", captured.get()).rstrip("\n")


@pytest.fixture(autouse=True)
def _a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second pass between two looks."""
    seconds = iter(range(100))
    monkeypatch.setattr(round_line.time, "monotonic", lambda: float(next(seconds)))


@pytest.mark.parametrize("width", [50, 60, 80, 100])
def test_round_time_left_and_main_metric_are_there_at_any_width(width: int) -> None:
    console = Console(width=width, force_terminal=True, markup=False, _environ={})
    line = shown(console, record(0), record(1), record(2))
    assert "\n" not in line
    assert len(line) <= width
    assert line.startswith("round 2/20 ")
    assert "0:00:18 left" in line
    assert "accuracy 0.8123  1 failed" in line
    assert ("train loss 0.5" in line) == (width >= 100)


def test_a_pipe_gets_a_plain_line_a_round() -> None:
    out = io.StringIO()
    line = RoundLine(3, Console(file=out, width=100_000, markup=False), "accuracy")
    for number in range(4):
        line.show(record(number, failed=number == 3), is_new=number != 1)
    assert out.getvalue().splitlines() == [
        "round 0/3  accuracy 0.8123  loss 0.2  another-measure 1",
        "round 2/3  accuracy 0.8123  1 failed  loss 0.2  another-measure 1  train loss 0.5  0:00:00 left",
        "round 3/3  failed  accuracy 0.8123  1 failed",
    ]


def test_a_failed_round_is_not_counted_as_done() -> None:
    line = RoundLine(20, Console(file=io.StringIO()), "accuracy")
    line.show(record(4), is_new=True)
    line.show(record(5, failed=True), is_new=True)
    assert line.bar.tasks[0].completed == 4


def test_the_time_left_follows_the_rounds_that_were_seen() -> None:
    clock = Clock()
    assert [clock.left(done, 10) for done in (4, 6, 10)] == ["", "0:00:02 left", ""]  # 6 is the second look
