"""An exception as text: whole for who mends it, and one line for who runs it."""

import traceback

LONGEST = 20_000
"""Characters of a traceback that are kept."""


def traceback_of(error: BaseException) -> str:
    """Return an exception with its causes, its notes and every line of code on its way."""
    return shortened("".join(traceback.format_exception(error)))


def line_of(error: BaseException) -> str:
    """Return the kind of an exception and what it says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def shortened(text: str) -> str:
    """Return a text without its middle where it is longer than LONGEST."""
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    # The end says what was raised, and where: it gets three quarters of the room.
    head, tail = text[: LONGEST // 4], text[-LONGEST * 3 // 4 :]
    return f"{head}\n... {left_out} characters are left out ...\n{tail}"
