"""Removing from finished runs what only going on with them needs."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from models.core.errors import UserError
from server.disk import disk_use
from server.run_folder import hold
from server.run_schema import CHECKPOINTS, CLIENTS, LOCK
from simulations.runs.reader import read_run

FINISHED = ("completed", "stopped")
REMOVED = (CHECKPOINTS, CLIENTS)


def clean(paths: Sequence[Path]) -> int:
    """Remove the checkpoints and the clients' states of finished runs; return the bytes that are free then.

    Metrics, models, figures and reports stay. The runs can be given no more rounds. Raises UserError, which
    names each of them, for runs that have not come to a good end or are under way; nothing is removed then.
    """
    folders = list(dict.fromkeys(path.resolve() for path in paths))
    wrong: list[str] = []
    with ExitStack() as locks:
        for folder in folders:
            try:
                _check_finished(folder)
                locks.callback(hold(folder, LOCK).release)
            except UserError as error:
                wrong.append(str(error))
        if wrong:
            raise UserError(f"nothing was removed: {'; '.join(wrong)}")
        return sum(map(_remove, folders))


def _check_finished(folder: Path) -> None:
    """Raise UserError for what is no run, and for one that may be gone on with."""
    status = read_run(folder).status
    if status not in FINISHED:
        raise UserError(
            f"{folder} is {status}, and its checkpoints may be wanted to go on with: delete the folder "
            "itself where they are not"
        )


def _remove(folder: Path) -> int:
    """Remove what only going on needs; return its bytes."""
    before = disk_use(folder)
    for name in REMOVED:
        shutil.rmtree(folder / name, ignore_errors=True)
    return sum(before.get(name, 0) for name in REMOVED)
