"""The one exception for mistakes of the person who runs polyfed."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that its maker can mend: one line that says what was given, what is allowed, what to do.

    Command lines print it without a stack trace and exit with code 2.
    """


def unknown(kind: str, given: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that no registry holds, with the names nearest to it."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5) or difflib.get_close_matches(
        given.lower(), [name.lower() for name in names], n=3, cutoff=0.5
    )
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
    return UserError(f"unknown {kind} {given!r}: {hint}")
