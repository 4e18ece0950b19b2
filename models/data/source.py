"""Datasets that are read from where their name says: "csv:PATH", "text:DIR"."""

from pathlib import Path

from models.config import TaskConfig
from models.errors import UserError


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
