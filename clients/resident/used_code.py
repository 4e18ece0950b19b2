"""The code that a process has imported, to tell whether it has changed since."""

import sys
from pathlib import Path


class UsedCode:
    """Files of imported modules, as they were when they were first seen here."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, int] | None] = {}

    def note(self) -> None:
        """Look at the modules that were imported since."""
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file not in self.seen:
                self.seen[file] = _stamp(file)

    def changed(self) -> str:
        """Return a file that is no longer as it was; "" where there is none."""
        return next((file for file, stamp in self.seen.items() if _stamp(file) != stamp), "")


def _stamp(file: str) -> tuple[int, int] | None:
    """Return what tells a file from the one that it was."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
