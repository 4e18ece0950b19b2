"""Why Flower's programs end: they say it in their log alone, as their exit status is 1 for everything."""

import logging
import re

CONNECTION = 305
"""Flower's exit code of a SuperNode that the SuperLink could not be reached with, or that it refused."""
NOT_ACTIVATED = 2004
"""Flower's error of a node whose key is not known, or that is still listed as connected."""


class ExitLog(logging.Handler):
    """Remembers what Flower's log says about the program's end."""

    def __init__(self) -> None:
        super().__init__()
        self.code: int | None = None
        self.error: int | None = None

    @staticmethod
    def attached() -> "ExitLog":
        """Return one that hears Flower's log."""
        heard = ExitLog()
        logging.getLogger("flwr").addHandler(heard)
        return heard

    def emit(self, record: logging.LogRecord) -> None:
        """Take the codes out of a message."""
        text = record.getMessage()
        if code := re.match(r"Exit Code: (\d+)", text):
            error = re.search(r"\[code: (\d+)\]", text)
            self.code, self.error = int(code[1]), int(error[1]) if error else None

    @property
    def is_refusal(self) -> bool:
        """Whether the SuperLink was reached and did not take the node."""
        return (self.code, self.error) == (CONNECTION, NOT_ACTIVATED)
