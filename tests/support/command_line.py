"""The `polyfed` command, run in this process."""

import contextlib
import io
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from simulations.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


@contextlib.contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """Undo what the command sets up for a process of its own."""
    yield
    logging.captureWarnings(False)


def polyfed(*arguments: object) -> Ended:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _logging_as_it_was(),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["polyfed", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
    return Ended(exit_.value.code or 0, out.getvalue(), err.getvalue())


def hear_ctrl_c() -> None:
    """Let a process that is started with this hear Ctrl-C: what a shell runs in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
