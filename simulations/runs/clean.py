"""Removing from finished runs what only going on with them needs."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from models.core.errors import UserError
from server.disk import disk_use
from server.run_folder import hold
from server.run_schema import CHECKPOINTS, CLIENTS, LOCK
from simulations.runs.reader import read_runs

FINISHED = ("completed", "stopped")
REMOVED = (CHECKPOINTS, CLIENTS)


def clean(paths: Sequence[Path]) -> int:
    """Remove the checkpoints and the clients' states of finished runs; return the bytes that are free then.

    Metrics, models, figures and reports stay. The runs can be given no more rounds. Raises UserError, before
    anything is removed, for a run that has not come to a good end or is under way.
    """
    runs = read_runs(paths)
    for run in runs:
        if run.status not in FINISHED:
            raise UserError(
                f"{run.path} is {run.status}, and its checkpoints may be wanted to go on with: delete the "
                "folder itself where they are not"
            )
    freed = 0
    for run in runs:
        lock = hold(run.path, LOCK)
        try:
            before = disk_use(run.path)
            for name in REMOVED:
                freed += before.get(name, 0)
                shutil.rmtree(run.path / name, ignore_errors=True)
        finally:
            lock.release()
    return freed
