"""RUN/errors.log: every failure of a run, with its whole traceback."""

import hashlib
import re
import time
from pathlib import Path
from textwrap import indent

from models.core.tracebacks import shortened, traceback_of
from server.run_schema import ERRORS
from strategies.wire.reply import ClientFailure

CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Terminal colours and all that moves a cursor: what a node says is shown on terminals."""


class ErrorLog:
    """Adds failures to a run's errors.log.

    An entry begins with a line of when and where; the traceback follows, indented. One that was written
    before is named instead of written again: a hundred clients may fail in one way.
    """

    def __init__(self, run_dir: Path, *, debug: bool = False) -> None:
        """Make no file yet; with `debug`, exceptions that are recorded are raised."""
        self.path = run_dir / ERRORS
        self.debug = debug
        self._written: dict[bytes, str] = {}

    def record(self, where: str, error: Exception) -> None:
        """Add an exception that the run survives; in debug mode it does not, and the exception is raised."""
        if self.debug:
            raise error
        self.write(where, traceback_of(error))

    def client_failed(self, server_round: int, failure: ClientFailure) -> None:
        """Add what befell a client: its traceback, or the line that is all that is known."""
        place = "" if failure.node is None else f" on node {failure.node}"
        where = f"client {failure.client} in round {server_round}{place}"
        self.write(where, failure.traceback or failure.error)

    def write(self, where: str, text: str) -> None:
        """Add an entry."""
        text = shortened(CONTROL.sub("", text.replace("\r\n", "\n"))).strip("\n")
        key = hashlib.sha256(text.encode(errors="backslashreplace")).digest()
        before = self._written.setdefault(key, where)
        if before is not where:
            text = f"the same as of {before}"
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{stamp} {where}\n{indent(text, '  ')}\n\n")
