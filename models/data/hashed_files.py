"""Files with their hashes."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 2**30
"""Files that are larger together are not hashed: a start must not wait for them."""


class HashedFile(NamedTuple):
    """A file, named by its path below the folder that holds all of them."""

    name: str
    num_bytes: int
    sha256: str | None
    """None where the files are too large to be hashed at every start."""


def hash_files(files: Sequence[Path]) -> list[HashedFile]:
    """Return the files with their hashes; OSError for one that cannot be read."""
    sizes = [file.stat().st_size for file in files]
    folder = os.path.commonpath([file.parent for file in files]) if files else ""
    return [
        HashedFile(
            file.relative_to(folder).as_posix(), size, _sha256(file) if sum(sizes) <= MOST_BYTES else None
        )
        for file, size in zip(files, sizes, strict=True)
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
