"""What a person at the terminal sees of a run's log: its warnings, above the progress bar."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flwr.common.logger import console_handler

from models.core.log import logger
from server.error_log import CONTROL
from server.run_log import LINE, PYTHON_WARNINGS, handled, level_at_most, warnings_logged

SHOWN = (logger.name, PYTHON_WARNINGS.name)
"""Whose lines are shown; Flower's own are in its log, and in run.log from WARNING on."""


class Terminal(logging.Handler):
    """Shows a text once, however often it is said: servers and launchers plan the same run."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record of this process."""
        self.show(record.levelno, record.getMessage())

    def show(self, level: int, text: str) -> None:
        """Show the first line of a text."""
        line = CONTROL.sub("", next(iter(text.splitlines()), ""))
        # What is critical ends the run, and the command ends with it.
        if line in self._shown or level >= logging.CRITICAL:
            return
        self._shown.add(line)
        word = f"{logging.getLevelName(level).lower()}: " if level >= logging.WARNING else ""
        # A progress bar on a terminal has put itself in place of sys.stderr, and moves down.
        print(word + line, file=sys.stderr)


class FollowedLog:
    """Shows the lines that another process adds to a run.log."""

    def __init__(self, path: Path, terminal: Terminal) -> None:
        self.path = path
        self.terminal = terminal
        self._position = path.stat().st_size if path.exists() else 0

    def look(self) -> None:
        """Show what has been added since the last look."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            while (line := file.readline()).endswith(b"\n"):
                self._position = file.tell()
                level, text = _shown(line.decode(errors="replace"))
                if level >= self.terminal.level:
                    self.terminal.show(level, text)


def num_warnings(path: Path) -> int:
    """Return how many warnings and errors a run.log holds that a terminal has shown."""
    lines = path.read_text(errors="replace", encoding="utf-8").splitlines() if path.exists() else []
    return sum(logging.WARNING <= _shown(line)[0] < logging.CRITICAL for line in lines)


def _shown(line: str) -> tuple[int, str]:
    """Return the level and text of a line of run.log; level 0 for what is not for terminals."""
    found = LINE.fullmatch(line.rstrip("\n"))
    if not found or found["name"] not in SHOWN:
        return 0, ""
    return logging.getLevelNamesMapping().get(found["level"], 0), found["text"]


@contextmanager
def terminal_log(verbose: bool) -> Iterator[Terminal]:
    """Show warnings meanwhile; with `verbose` all that polyfed and Flower say in this process."""
    terminal = Terminal(logging.INFO if verbose else logging.WARNING)
    flowers_level = console_handler.level
    console_handler.setLevel(logging.INFO if verbose else logging.CRITICAL)
    with ExitStack() as undo:
        undo.callback(console_handler.setLevel, flowers_level)
        undo.enter_context(level_at_most(logger, terminal.level))
        undo.enter_context(warnings_logged())
        for name in SHOWN:
            undo.enter_context(handled(logging.getLogger(name), terminal))
        yield terminal
