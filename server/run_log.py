"""RUN/run.log: what polyfed says while a run goes on, and what Flower and Python warn of."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flwr.common.logger import FLOWER_LOGGER, console_handler

from models.core.log import logger
from server.run_schema import RUN_LOG

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LINE = re.compile(r"\S+ \S+ (?P<level>[A-Z]+) (?P<name>\S+): (?P<text>.*)")
"""The first line of a record; those that follow are indented."""
PYTHON_WARNINGS = logging.getLogger("py.warnings")


@contextmanager
def run_log(run_dir: Path) -> Iterator[None]:
    """Write RUN/run.log meanwhile; where nobody shows polyfed's lines on a terminal, Flower does.

    The file holds polyfed's lines from INFO on, and from WARNING on those of Flower and Python.
    """
    file = logging.FileHandler(run_dir / RUN_LOG, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(_Indented(FORMAT))
    for_warnings = _Above(file)
    with ExitStack() as undo:
        undo.callback(file.close)
        undo.enter_context(level_at_most(logger, logging.INFO))
        undo.enter_context(warnings_logged())
        for source, handler in (
            (logger, file),
            (FLOWER_LOGGER, for_warnings),
            (PYTHON_WARNINGS, for_warnings),
        ):
            if source is not FLOWER_LOGGER and _is_silent(source):
                undo.enter_context(handled(source, console_handler))
            undo.enter_context(handled(source, handler))
        yield


class _Indented(logging.Formatter):
    """Formats a record so that only its first line begins in the first column."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).rstrip("\n").replace("\n", "\n    ")


class _Above(logging.Handler):
    """Passes what is a warning or worse on to another handler."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(logging.WARNING)
        self.handler = handler

    def emit(self, record: logging.LogRecord) -> None:
        self.handler.handle(record)


@contextmanager
def handled(source: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    """Let a handler have a logger's lines meanwhile."""
    source.addHandler(handler)
    try:
        yield
    finally:
        source.removeHandler(handler)


@contextmanager
def level_at_most(source: logging.Logger | logging.Handler, level: int) -> Iterator[None]:
    """Let a logger pass what has this level meanwhile."""
    before = source.level
    source.setLevel(min(before or level, level))
    try:
        yield
    finally:
        source.setLevel(before)


@contextmanager
def warnings_logged() -> Iterator[None]:
    """Send Python's warnings to their logger meanwhile; they may go there already."""
    already = getattr(warnings.showwarning, "__module__", "") == logging.__name__
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(already)


def _is_silent(source: logging.Logger) -> bool:
    return all(isinstance(handler, logging.NullHandler) for handler in source.handlers)
