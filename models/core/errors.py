"""The one exception for mistakes of the person who runs polyfed."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that its maker can mend: one line that says what was given, what is allowed, what to do.

    Command lines print it without a stack trace and exit with code 2.
    """


LONGEST = 200
"""Characters of a value that an error shows: it is one line."""


def shown(given: object) -> str:
    """Return a value as an error shows it, cut where it is long."""
    try:
        text = repr(given)
    except ValueError:  # Python writes whole numbers of up to 4,300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return "a value that is nested too deeply"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def unknown(kind: str, given: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that no registry holds, with the names nearest to it."""
    names = sorted(known)
    by_lower_case = {name.lower(): name for name in names}
    close = difflib.get_close_matches(given[:LONGEST].lower(), by_lower_case)
    near = [by_lower_case[name] for name in close]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
    return UserError(f"unknown {kind} {shown(given)}: {hint}")
