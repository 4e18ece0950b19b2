"""What parsed examples follow from: while none of it changes, they need not be parsed again."""

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.hashed_files import hash_files
from models.data.source import Source

_ALWAYS = ("numpy", "torch")
"""Distributions that every dataset is made with."""


def cache_key(
    source: Source, config: TaskConfig, as_loaded: TaskConfig, options: Mapping[str, Any]
) -> str | None:
    """Return all that the examples of a dataset follow from, as JSON; None where that cannot be told.

    `config` is what the run says, `as_loaded` what the loader sees.
    """
    if source.parsed_with is None:
        return None
    try:
        # Options may say where files are named, as the columns of a table of pictures do.
        with_options = as_loaded.model_copy(update={"dataset_options": config.dataset_options})
        files = [] if source.packaged else _files(source, with_options)
        versions = {name: version(name) for name in sorted({*_ALWAYS, *source.parsed_with})}
        code = [_code_of_this_folder(), _sha256(_module_file(source.load))]
    except (OSError, UserError, PackageNotFoundError):  # the loader says what is wrong
        return None
    if not (files or source.packaged):
        return None
    told = {
        "dataset": [config.dataset, as_loaded.dataset],
        "options": options,
        "files": files,
        "versions": {"python": "{}.{}".format(*sys.version_info), **versions},
        "code": code,
    }
    return json.dumps(told, sort_keys=True, default=str)


def _files(source: Source, config: TaskConfig) -> list[tuple[Any, ...]]:
    """Return what tells files apart: their hashes, or where they are too large, their places and times."""
    paths = source.files_of(config)
    return [
        (*file,) if file.sha256 else (file.name, str(path.resolve()), file.num_bytes, path.stat().st_mtime_ns)
        for path, file in zip(paths, hash_files(paths), strict=True)
    ]


@cache
def _code_of_this_folder() -> str:
    """Return a hash of polyfed's own loaders: another polyfed parses anew, and nobody counts versions."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + bytes.fromhex(_sha256(path)))
    return digest.hexdigest()


def _module_file(load: Any) -> Path:
    """Return the file of a loader; OSError where there is none."""
    while isinstance(load, partial):
        load = load.func
    try:
        return Path(inspect.getfile(inspect.unwrap(load)))
    except TypeError as error:  # it is no function of Python's
        raise OSError(str(error)) from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
