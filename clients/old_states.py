"""Removing what clients remembered of runs that nobody goes on with, where the node's owner asks for it."""

import os
import re
import time
from contextlib import suppress
from pathlib import Path

RUN = re.compile(r".+-[0-9a-f]{8}")
"""A run's folder: its name, and its token."""
STATES = "[0-9][0-9][0-9]/client-*"
FILES = ("round-*.safetensors", "*.partial")
OPENED = ("opened-sums-*.json", "opened-sums-*.partial")
"""What nodes remember of secure aggregation."""
DAY = 24 * 60 * 60


def mark_in_use(run: Path) -> None:
    """Note that a run goes on, in the time of its folder."""
    with suppress(FileNotFoundError):  # none of its clients remembers anything
        os.utime(run)


def drop_old_states(root: Path, days: float) -> list[Path]:
    """Remove the states of runs that have not been at work here for that many days; return their folders.

    Nothing else goes: the folder may be one that its owner keeps other things in.
    """
    if not root.is_dir():
        return []
    last = time.time() - days * DAY
    old = [run for run in sorted(root.iterdir()) if RUN.fullmatch(run.name) and run.is_dir()]
    return [run for run in old if run.stat().st_mtime < last and _drop(run)]


def _drop(run: Path) -> bool:
    """Remove the states below a folder, and what is empty then; return whether there were any."""
    clients = [folder for folder in run.glob(STATES) if folder.is_dir() and not folder.is_symlink()]
    for folder in clients:
        for pattern in FILES:
            for file in folder.glob(pattern):
                file.unlink(missing_ok=True)
        for emptied in (folder, folder.parent):
            with suppress(OSError):  # something else lies in it
                emptied.rmdir()
    opened = [file for pattern in OPENED for file in run.glob(pattern)]
    for file in opened:
        file.unlink(missing_ok=True)
    with suppress(OSError):
        run.rmdir()
    return bool(clients or opened)
