"""What of a log a terminal shows."""

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from simulations.runtime.terminal import FollowedLog, Terminal, num_warnings
from simulations.terminal import Table, UncroppedConsole, make_console

LINES = (
    "2026-11-26 01:15:29,046 WARNING flwr: Flower's own\n"
    "2026-11-26 01:15:35,940 WARNING py.warnings: a.py:1: UserWarning: [red]brackets\n"
    "    warnings.warn(\n"
    "2026-11-26 01:15:41,280 INFO polyfed: 3 clients on 1 nodes\n"
    "2026-11-26 01:15:44,927 WARNING polyfed: Round 1: client 2 failed\n"
    "2026-11-26 01:15:44,927 WARNING polyfed: Round 1: client 2 failed\n"
    "2026-11-26 01:15:46,279 CRITICAL polyfed: The run failed: it is over\n"
)


def test_it_follows_what_another_process_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.log"
    path.write_text("2026-11-26 01:00:00,000 WARNING polyfed: of the run that is resumed\n", encoding="utf-8")
    followed = FollowedLog(path, Terminal(logging.WARNING))
    followed.look()
    for piece in (LINES[:100], LINES[100:300], LINES[300:]):
        with path.open("a", encoding="utf-8") as file:
            file.write(piece)
        followed.look()
    assert capsys.readouterr().err.splitlines() == [
        "warning: a.py:1: UserWarning: [red]brackets",
        "warning: Round 1: client 2 failed",
    ]


def test_a_line_stands_above_the_progress_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with Progress(console=console) as bar:
        bar.add_task("rounds")
        Terminal(logging.WARNING).show(logging.WARNING, "look \x1b[2Jhere")
    line, last = out.getvalue().index("warning: look here\n"), out.getvalue().rindex("rounds")
    assert line < last


def test_what_is_printed_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    table = Table("name \x1b[2J")
    table.add_row("a\u202eb")
    for each in ("one \x1b[2Jline\u2028 \x9b2J", Text("two\n\x1b]0;lines\a"), table):
        console.print(each, soft_wrap=True)
    assert capsys.readouterr().out.splitlines() == [
        r"one \x1b[2Jline\u2028 \x9b2J",
        "two",
        r"\x1b]0;lines",
        r"name \x1b[2J",
        r"a\u202eb",
    ]


def test_colours_and_progress_bars_are_our_own() -> None:
    out = io.StringIO()
    console = UncroppedConsole(file=out, force_terminal=True, width=80, color_system="standard")
    console.print(Text("red", style="red"))
    with Progress(console=console) as bar:
        bar.add_task("rounds")
    assert out.getvalue().startswith("\x1b[31mred\x1b[0m\n")
    assert "\\x1b" not in out.getvalue()
    assert "\x1b[?25l" in out.getvalue()


def test_a_log_that_is_not_there_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    followed = FollowedLog(tmp_path / "run.log", Terminal(logging.INFO))
    followed.look()
    (tmp_path / "run.log").write_text(LINES, encoding="utf-8")
    followed.look()
    assert "3 clients on 1 nodes\n" in capsys.readouterr().err


def test_warnings_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    assert num_warnings(path) == 0
    path.write_text(LINES, encoding="utf-8")
    assert num_warnings(path) == 3
