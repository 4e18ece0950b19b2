"""errors.log, entry by entry."""

import re
from pathlib import Path

import pytest

from models.core.tracebacks import LONGEST, line_of, shortened, traceback_of
from server.error_log import ErrorLog
from strategies.wire.reply import ClientFailure


def raised(message: str = "a bad batch") -> ValueError:
    try:
        raise ValueError(message) from KeyError("cause")
    except ValueError as error:
        error.add_note("said by node 7")
        return error


def failure(client: int, node: int | None, text: str) -> ClientFailure:
    return ClientFailure(client, "ValueError: a line", text, node)


def headings(path: Path) -> list[str]:
    """Return the lines that begin in the first column, without their time."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split(" ", 2)[2] for line in lines if line and not line.startswith(" ")]


def test_an_entry_has_the_place_the_line_of_code_the_cause_and_the_notes(tmp_path: Path) -> None:
    errors = ErrorLog(tmp_path)
    assert not errors.path.exists()
    errors.record("the figures of round 3", raised())
    assert headings(tmp_path / "errors.log") == ["the figures of round 3"]
    text = errors.path.read_text(encoding="utf-8")
    assert '    raise ValueError(message) from KeyError("cause")\n' in text
    assert "  KeyError: 'cause'\n" in text
    assert text.endswith("  ValueError: a bad batch\n  said by node 7\n\n")


def test_entries_of_several_runs_of_one_folder_follow_each_other(tmp_path: Path) -> None:
    ErrorLog(tmp_path).client_failed(2, failure(3, 0, "first"))
    ErrorLog(tmp_path).client_failed(4, failure(3, None, "second"))
    assert headings(tmp_path / "errors.log") == ["client 3 in round 2 on node 0", "client 3 in round 4"]


def test_where_no_traceback_is_known_the_line_stands(tmp_path: Path) -> None:
    ErrorLog(tmp_path).client_failed(1, ClientFailure(0, "its node has gone"))
    assert (
        (tmp_path / "errors.log")
        .read_text(encoding="utf-8")
        .endswith(" client 0 in round 1\n  its node has gone\n\n")
    )


def test_what_befalls_many_is_written_once(tmp_path: Path) -> None:
    errors = ErrorLog(tmp_path)
    for client in range(3):
        errors.client_failed(1, failure(client, 0, "Traceback: the whole of it"))
    text = errors.path.read_text(encoding="utf-8")
    assert text.count("the whole of it") == 1
    assert text.count("the same as of client 0 in round 1 on node 0") == 2
    assert len(headings(errors.path)) == 3


def test_an_entry_is_bounded_and_keeps_its_end(tmp_path: Path) -> None:
    errors = ErrorLog(tmp_path)
    errors.client_failed(1, failure(0, 0, "begin" + "x" * 10_000_000 + "ValueError: the end"))
    text = errors.path.read_text(encoding="utf-8")
    assert len(text) < LONGEST + 200
    assert "  begin" in text
    assert "ValueError: the end" in text
    (said,) = re.findall(r"\.\.\. (\d+) characters are left out \.\.\.", text)
    assert text.count("x") + int(said) == 10_000_000
    assert shortened("x" * LONGEST) == "x" * LONGEST


def test_what_a_node_says_can_neither_move_a_cursor_nor_forge_an_entry(tmp_path: Path) -> None:
    errors = ErrorLog(tmp_path)
    errors.client_failed(
        1, failure(0, 0, "\x1b[31mred\x1b[0m\x1b]0;title\x07\r\n2026-01-01 00:00:00 the run\nü \udcff")
    )
    assert headings(errors.path) == ["client 0 in round 1 on node 0"]
    lines = errors.path.read_text(encoding="utf-8").splitlines()
    assert lines[1:4] == ["  red]0;title", "  2026-01-01 00:00:00 the run", "  ü \\udcff"]


def test_in_debug_mode_the_exception_itself_comes_out(tmp_path: Path) -> None:
    error = raised()
    with pytest.raises(ValueError, match="a bad batch") as caught:
        ErrorLog(tmp_path, debug=True).record("anywhere", error)
    assert caught.value is error
    assert not (tmp_path / "errors.log").exists()


def test_an_exception_in_one_line() -> None:
    assert line_of(ValueError("two\n lines")) == "ValueError: two lines"
    assert traceback_of(ValueError("no frames")) == "ValueError: no frames\n"
