"""Where the `polyfed` command begins: a Ctrl-C while it imports torch ends it without a traceback."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code of Ctrl-C."""


def main() -> None:
    """Import the command line, and run it."""
    # An exception would be caught, or turned into another, somewhere in the libraries that are imported.
    heard = signal.signal(signal.SIGINT, _end) if signal.getsignal(signal.SIGINT) else None
    from models.core.memory import keep_freed_memory
    from simulations.cli import main as command_line

    keep_freed_memory()
    if heard is not None:
        signal.signal(signal.SIGINT, heard)
    command_line()


def _end(_: int, __: FrameType | None) -> None:
    sys.stderr.write("polyfed: interrupted\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)
