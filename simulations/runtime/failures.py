"""What a run adds to its errors.log."""

from pathlib import Path

from server.run_schema import ERRORS


class NewFailures:
    """The entries that come after this object was made: a run that goes on has older ones."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / ERRORS
        self._before = self.path.stat().st_size if self.path.exists() else 0

    def text(self) -> str:
        """Return them; "" where nothing has failed."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            file.seek(self._before)
            return file.read().decode(errors="replace")
