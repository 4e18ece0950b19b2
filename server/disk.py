"""What a run folder takes of the disk."""

import os
from pathlib import Path

OTHER = "other"
"""What lies in no folder of its own."""


def disk_use(run_dir: Path) -> dict[str, int]:
    """Return the bytes of each folder in a run's folder, and of all other files together."""
    found = {entry.name: _size(entry.path) for entry in os.scandir(run_dir) if entry.is_dir()}
    files = sum(entry.stat().st_size for entry in os.scandir(run_dir) if entry.is_file())
    return {name: size for name, size in sorted({**found, OTHER: files}.items()) if size}


def in_words(disk: dict[str, int]) -> str:
    """Return a disk use as text, the largest part first."""
    parts = sorted(disk.items(), key=lambda part: -part[1])
    largest = ", ".join(f"{name} {_bytes(size)}" for name, size in parts if name != OTHER)
    return f"{_bytes(sum(disk.values()))}{f': {largest}' if largest else ''}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _size(folder: str) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except FileNotFoundError:  # a worker has dropped it meanwhile
                continue
    return total
