"""An exception as text: whole for who mends it, and one line for who runs it."""

import traceback

LONGEST = 20_000
"""Characters of a traceback that are kept."""
LONGEST_LINE = 1_000
"""Characters of one line that are kept."""


def traceback_of(error: BaseException) -> str:
    """Return an exception with its causes, its notes and every line of code on its way."""
    whole = shortened("".join(traceback.format_exception(error)))
    return whole.encode(errors="backslashreplace").decode()  # half a character is none to a message


def line_of(error: BaseException) -> str:
    """Return the kind of an exception and what it says, in one line."""
    try:
        said = str(error)
    except Exception:  # of its own code
        said = "<its text cannot be had: __str__ raised>"
    return plain_line(f"{type(error).__name__}: {said}")


def plain_line(text: str) -> str:
    """Return a text as one line of bounded length, which every file can hold and no terminal acts on."""
    line = " ".join(text.split())[: LONGEST_LINE + 1]
    plain = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
    return plain if len(plain) <= LONGEST_LINE else f"{plain[: LONGEST_LINE - 4]} ..."


def shortened(text: str) -> str:
    """Return a text without its middle where it is longer than LONGEST."""
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    # The end says what was raised, and where: it gets three quarters of the room.
    head, tail = text[: LONGEST // 4], text[-LONGEST * 3 // 4 :]
    return f"{head}\n... {left_out} characters are left out ...\n{tail}"
