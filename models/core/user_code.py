"""Modules that a run names and its user wrote: they lie in the folder that the run was started from."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

FOLDER = "POLYFED_USER_CODE"
"""Environment variable: that folder, for processes that work in another."""
OURS = ("models", "strategies", "clients", "server", "simulations", "polyfed")
"""Packages of polyfed, which a folder of the user's does not replace."""


def user_folder() -> Path:
    """Return the folder in which "module:Class" is looked for, after all that is installed."""
    return Path(os.environ.get(FOLDER) or Path.cwd()).resolve()


def import_user_module(name: str) -> ModuleType:
    """Import a module of the user's folder, or one that is installed.

    Raises ImportError where there is none, and where the folder's is hidden by another of its name.
    """
    folder = user_folder()
    # Last, so that a file of the folder takes no other module's place: Python's own, or one of polyfed.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()  # the file may have been written a moment ago
    mine = _file_in_folder(name)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if mine and _is_ours(name):
            raise ImportError(f"{mine} is hidden by polyfed's own {_top(name)!r}: rename it") from error
        if mine or error.name not in (name, _top(name)):  # a module that it imports is missing
            raise
        raise ImportError(f"{error}, neither in {folder} nor installed") from error
    if not _is_ours(name) and (hidden := hidden_by(module)):
        raise ImportError(hidden.removeprefix("; "))
    return module


def hidden_by(module: ModuleType) -> str:
    """Return the end of an error about a module that is not the user's file of its name; "" where it is."""
    mine, found = _file_in_folder(module.__name__), getattr(module, "__file__", None)
    if not mine or (found and Path(found).resolve() == mine):
        return ""
    owner = "Python's own " * (_top(module.__name__) in sys.stdlib_module_names)
    owner += "polyfed's own " * _is_ours(module.__name__)
    return f"; {mine} is hidden by {owner}{module.__name__!r} ({found or 'built in'}): rename it"


def _top(name: str) -> str:
    return name.partition(".")[0]


def _is_ours(name: str) -> bool:
    """Whether a module is polyfed's; a copy of it is too, as Flower runs one."""
    return _top(name) in OURS


def _file_in_folder(name: str) -> Path | None:
    base = user_folder().joinpath(*name.split("."))
    candidates = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((path.resolve() for path in candidates if path.is_file()), None)
