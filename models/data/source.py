"""Where datasets come from: a package, the folder data-dir, or the path in their name, as in "csv:PATH"."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset


@dataclass(frozen=True)
class Source:
    """How a dataset is loaded, and what is known of it before."""

    kind: str
    """What its examples are; the `kind` of the dataset and of the tasks that learn from it."""
    load: Callable[..., Dataset]
    """Takes the config, and as further parameters with defaults the options of `dataset-options`."""
    packaged: bool = False
    """Whether it comes with a dependency, and is read from no folder."""
    files: Callable[[TaskConfig], Sequence[Path]] | None = None
    """The files that it reads; unless given, those at the path in the dataset's name."""

    def files_of(self, config: TaskConfig) -> Sequence[Path]:
        """Return the files that it reads for this config; those in folders further down are not named."""
        if self.files:
            return self.files(config)
        _, _, named = config.dataset.partition(":")  # a path, or whatever else a package makes of it
        if self.packaged or not named:
            return ()
        path = Path(config.data_dir, named)
        if not path.is_absolute():
            return ()
        if not path.is_dir():
            return [path] if path.is_file() else []
        return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))


def source_path(config: TaskConfig) -> Path:
    """Return the path after the colon of `config.dataset`: absolute, or relative to `config.data_dir`.

    Raises UserError for neither and for both: a node that has its own data-dir would read past it.
    """
    kind, _, path = config.dataset.partition(":")
    if path and Path(path).is_absolute() != bool(config.data_dir):
        return Path(config.data_dir, path)
    raise UserError(
        f"dataset must be '{kind}:' and an absolute path, or a path relative to data-dir where that is set, "
        f"got {config.dataset!r} and data-dir {config.data_dir!r}"
    )
