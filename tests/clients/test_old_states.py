"""Removing the states of old runs from a node, and nothing else."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import Context, RecordDict

from clients.old_states import DAY, drop_old_states, mark_in_use
from clients.state import ClientState, ClientStates, ModelMemory
from models.core.config import Value
from server.app import app as server_app
from simulations.runtime.in_process import InProcessGrid


def write_run(root: Path, name: str, days: float) -> Path:
    """Write the state of a client of a run that was last at work so many days ago."""
    states = ClientStates(root / name)
    states.save(7, 2, ClientState(ModelMemory({"w": torch.zeros(1)})), 0)
    (states.of(7) / "4711.partial").touch()
    set_age(states.folder, days)
    return states.folder


def set_age(folder: Path, days: float) -> None:
    os.utime(folder, (time.time() - days * DAY,) * 2)


def test_runs_that_no_longer_go_on_are_removed(tmp_path: Path) -> None:
    old, new, going_on = (
        write_run(tmp_path, f"cnn-{number}-0123abcd", days) for number, days in enumerate((31, 29, 40))
    )
    mark_in_use(going_on)
    mark_in_use(tmp_path / "none")
    assert drop_old_states(tmp_path, 30) == [old]
    assert sorted(tmp_path.iterdir()) == [new, going_on]
    assert drop_old_states(tmp_path / "none", 30) == []


def test_notes_of_opened_sums_go_too_whole_or_not(tmp_path: Path) -> None:
    run = tmp_path / "cnn-0123abcd"
    run.mkdir()
    for ending in ("json", "partial"):
        (run / f"opened-sums-2.{ending}").touch()
    set_age(run, 31)
    assert drop_old_states(tmp_path, 30) == [run]
    assert not run.exists()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    write_run(tmp_path, "pictures", 99)  # no token in its name
    for name in ("holiday-0123abcd", "cnn-4567cdef"):
        write_run(tmp_path, name, 99)
        (tmp_path / name / "notes.txt").touch()
        set_age(tmp_path / name, 99)
    (tmp_path / "album-00000000").mkdir()
    (tmp_path / "album-00000000" / "one.jpg").touch()
    set_age(tmp_path / "album-00000000", 99)
    dropped = drop_old_states(tmp_path, 30)
    assert [run.name for run in dropped] == ["cnn-4567cdef", "holiday-0123abcd"]
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "album-00000000/one.jpg",
        "cnn-4567cdef/notes.txt",
        "holiday-0123abcd/notes.txt",
        "pictures/007/client-7/4711.partial",
        "pictures/007/client-7/round-2.safetensors",
    }


class RealNode(InProcessGrid):
    """A node with a disk of its own."""

    interchangeable_nodes = False


def test_a_node_removes_them_when_a_run_begins(tiny: Callable[..., dict[str, Value]], tmp_path: Path) -> None:
    old = write_run(tmp_path / "state", "cnn-0123abcd", 31)
    config = tiny(num_clients=2, num_server_rounds=1, keep_optimizer=True)
    grid = RealNode(config, 1)
    grid.contexts[0].node_config |= {"state-path": str(tmp_path / "state"), "keep-state-days": 30}
    server_app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config))
    (run,) = (tmp_path / "state").iterdir()
    assert run != old
    assert list(run.rglob("round-1.safetensors"))
