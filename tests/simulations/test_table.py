"""Tables on terminals of several widths, in a pipe, and in ASCII."""

import io
import re
import sys

import pytest
from rich.console import Console
from rich.text import Text

from simulations.terminal import Table, UncroppedConsole, let_any_text_be_printed, make_console

ROWS = [
    (
        "lstm-forecast",
        "Forecast the value that follows a window.",
        "lstm-forecast, lstm-forecast-centralized",
    ),
    ("gan", "Draw [bold]images[/bold].", "gan, gan-centralized"),
]


def table(**options: object) -> Table:
    made = Table(**options)
    for heading in ("task", "learns", "scenarios"):
        made.add_column(heading, overflow="fold")
    for row in ROWS:
        made.add_row(*map(Text, row))
    return made


def printed(width: int | None, made: Table) -> list[str]:
    """Return the lines on a terminal of that width; None = in a pipe."""
    out = io.StringIO()
    if width:
        console: Console = UncroppedConsole(
            file=out, width=width, force_terminal=True, color_system=None, _environ={}
        )
    else:
        console = UncroppedConsole(file=out, width=100_000)
    console.print(made)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()


@pytest.mark.parametrize("width", [40, 60, 62, 64, 66, 68, 70, 80, 100, 160])
def test_no_word_is_split_and_no_line_is_longer_than_the_terminal(width: int) -> None:
    lines = printed(width, table())
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in re.split(r"[\s│┃|]+", line)}
    assert words >= {word for row in ROWS for cell in row for word in cell.split()}


def test_a_narrow_terminal_gets_a_paragraph_a_row() -> None:
    assert printed(60, table(title="Tasks"))[:5] == [
        "Tasks",
        "lstm-forecast",
        "  learns: Forecast the value that follows a window.",
        "  scenarios: lstm-forecast, lstm-forecast-centralized",
        "gan",
    ]


def test_a_word_that_no_line_holds_stays_whole() -> None:
    made = Table("run", "folder")
    made.add_row("a", "/" + "x" * 70)
    assert printed(40, made) == ["a", "  folder:", "    /" + "x" * 70]


def test_a_pipe_gets_a_line_a_row_and_no_more() -> None:
    assert printed(None, table(title="Tasks", caption="So it is.")) == [
        "Tasks",
        "task           learns                                     scenarios",
        "lstm-forecast  Forecast the value that follows a window.  lstm-forecast, lstm-forecast-centralized",
        "gan            Draw [bold]images[/bold].                  gan, gan-centralized",
        "So it is.",
    ]


def test_an_ascii_stream_gets_signs_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    let_any_text_be_printed()
    make_console().print("accuracy ↑ 0.9 ± 0.1 – ü \udcc3 [bold]")
    assert out.buffer.getvalue() == b"accuracy ^ 0.9 +- 0.1 - \\xfc \\udcc3 [bold]\n"
