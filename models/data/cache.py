"""Parsed datasets that this machine keeps: the next process maps one from the disk and parses nothing.

An entry is one file, named by a hash of what its examples follow from; see `cache_key`.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from logging import INFO, WARNING
from pathlib import Path

from platformdirs import user_cache_path
from safetensors import SafetensorError

from models.core.errors import UserError
from models.core.log import log
from models.data.dataset import Dataset
from models.data.dataset_file import num_bytes, read_dataset, write_dataset

VARIABLE = "POLYFED_CACHE"
"""Environment variable with the folder of the cache, or "off"."""
MOST_BYTES = 2**30
"""Datasets that are larger are not kept: an entry is hashed whenever it is read."""
MOST_BYTES_IN_ALL = 2**32
"""What was not read for longest gives way when more than this is kept."""
_ENDING = ".safetensors"
_ABANDONED_AFTER = 3600.0
"""Seconds after which an unfinished file is that of a process that was killed."""


def cache_folder() -> Path | None:
    """Return the folder of the cache; None where it is off. UserError for a path that is not absolute."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() == "off":
        return None
    folder = Path(given).expanduser() if given else user_cache_path("polyfed") / "datasets"
    if not folder.is_absolute():
        raise UserError(f'{VARIABLE} must be an absolute folder, or "off", got {given!r}')
    return folder


def find(key: str, check: Callable[[Dataset], None]) -> Dataset | None:
    """Return the dataset that was kept under a key, mapped from the disk; None where there is none.

    `check` raises UserError for what is no dataset as it should be. What is damaged is dropped with one line.
    """
    path = _path(key)
    if path is None:
        return None
    try:
        if not path.is_file():
            return None
        dataset = read_dataset(path, key)
        check(dataset)
    except PermissionError:
        return None
    except Exception as error:  # whatever a strange file may cause: the dataset can be had without it
        log(WARNING, "%s is damaged (%s): dropped, and the dataset is read anew", path, _line(error))
        with suppress(OSError):
            path.unlink()
        return None
    with suppress(OSError):  # of a folder that others fill
        os.utime(path)
    return dataset


def keep(key: str, dataset: Dataset) -> None:
    """Keep a dataset under a key, unless it is too large or the folder cannot be written to."""
    path = _path(key)
    if path is None:
        return
    try:
        if num_bytes(dataset) > MOST_BYTES:
            log(INFO, "%s is not kept for the next run: it is larger than 1 GiB", dataset.name)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_dataset(path, key, dataset)
        _make_room(path)
    except (OSError, SafetensorError, TypeError) as error:
        log(INFO, "%s is not kept for the next run in %s (%s)", dataset.name, path.parent, _line(error))


def clear() -> int:
    """Remove all that is kept; return the bytes that are free then."""
    folder, freed = cache_folder(), 0
    for path in _entries(folder) if folder else []:
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


def _path(key: str) -> Path | None:
    folder = cache_folder()
    name = re.sub(r"[^\w.-]+", "-", str(json.loads(key)["dataset"][0]))[:40].strip(".-")
    return folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:32]}{_ENDING}" if folder else None


def _entries(folder: Path) -> list[Path]:
    """Return the entries, finished or not, and nothing else that may lie in the folder."""
    with suppress(OSError):
        return [path for path in folder.iterdir() if _ENDING in path.suffixes and path.is_file()]
    return []


def _make_room(newest: Path) -> None:
    """Remove what killed processes have left, and what was not read for longest where there is too much."""
    with suppress(OSError):  # another process does the same
        found = [(path.stat(), path) for path in _entries(newest.parent)]
        total = 0
        for stat, path in sorted(found, key=lambda pair: pair[0].st_mtime, reverse=True):
            unfinished = path.suffix != _ENDING
            if unfinished and time.time() - stat.st_mtime < _ABANDONED_AFTER:
                continue
            total += stat.st_size
            if path != newest and (unfinished or total > MOST_BYTES_IN_ALL):
                path.unlink(missing_ok=True)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
