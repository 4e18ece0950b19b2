"""The files that a dataset was read from, each with its hash."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from models.core.config import TaskConfig
from models.data.datasets import resolve
from models.data.source import unreadable

MOST_BYTES = 2**30
"""Files that are larger together are not hashed: a start must not wait for them."""


class HashedFile(NamedTuple):
    """A file, named by its path below the folder that holds all of them."""

    name: str
    num_bytes: int
    sha256: str | None
    """None where the files are too large to be hashed at every start."""


def data_files(config: TaskConfig) -> Iterator[HashedFile]:
    """Yield the files that the config's dataset is read from; none for data that comes with a package.

    Raises UserError for a file that cannot be read.
    """
    source, as_loaded = resolve(config)
    with unreadable(config.dataset, source, as_loaded):
        files = list(source.files_of(as_loaded))
        sizes = [file.stat().st_size for file in files]
        folder = os.path.commonpath([file.parent for file in files]) if files else ""
        for file, size in zip(files, sizes, strict=True):
            hashed = _sha256(file) if sum(sizes) <= MOST_BYTES else None
            yield HashedFile(file.relative_to(folder).as_posix(), size, hashed)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
