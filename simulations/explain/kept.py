"""A run's model as it was kept, with its task and data: what is explained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.plugins import find
from models.data.fingerprint import data_sha256
from models.registry import ENTRY_POINTS, TASKS, task_classes
from models.state import weights_sha256
from models.task import Task
from server.starting_point import round_of
from simulations.runs.kept import begun_model, load_kept_model
from simulations.runs.record import Run

WANTED_FOR = "explain"


@dataclass(frozen=True)
class Kept:
    """One of a run's models."""

    run: Run
    task: Task
    config: TaskConfig
    model: nn.Module
    """On the CPU, in eval mode."""
    untrained: nn.Module
    """The same before training."""
    which: str
    """Which of its models, such as "best, of round 18"."""
    data_sha256: str
    weights_sha256: str
    remarks: Sequence[str]
    """What a person should know of it, a line each."""

    @property
    def task_name(self) -> str:
        """The task as the run's config calls it."""
        return self.config.task


def load_kept(given: Path) -> Kept:
    """Load the model that RUN, RUN:best or RUN:last names; unless named, the one that `init-from` would take.

    Raises UserError for what is no run, has kept no model, cannot be explained, or does not fit its config.
    """
    kept = load_kept_model(given, WANTED_FOR, _check_offered)
    run, config, task = kept.run, kept.config, kept.task
    if not len(task.dataset.test):
        raise UserError(
            f"explain {run.path} has no held-out examples: give a run on data that holds some out"
        )
    if not task.explained_by:
        raise _not_offered(config.task)
    digest = data_sha256(task.dataset)
    remarks = list(kept.weights.remarks)
    if task.local:
        remarks.append(f"what stays with the clients ({', '.join(task.local)}) is as it was before training")
    used = run.result.used if run.result else None
    if used and used.data_sha256 and used.data_sha256 != digest:
        remarks.append("its data is not what it was when the run began")
    path = kept.weights.path
    number = round_of(path, run.path)
    return Kept(
        run,
        task,
        config,
        kept.model,
        begun_model(run, config, task, WANTED_FOR).eval(),
        path.stem + ("" if number is None else f", of round {number}"),
        digest,
        weights_sha256(kept.held),
        tuple(remarks),
    )


def _check_offered(_: Run, config: TaskConfig) -> None:
    """Raise UserError for a task that cannot be explained, before its data is loaded."""
    name = config.task
    if not any(cls.explained_by for cls in task_classes(name, find(name, "task", TASKS, ENTRY_POINTS))):
        raise _not_offered(name)


def _not_offered(name: str) -> UserError:
    """Return the error for a task that cannot be explained, with those that can."""
    from simulations.catalogue.tasks import read_catalogue

    can = [
        each for each, found in read_catalogue().tasks.items() if any(cls.explained_by for cls in found.thing)
    ]
    return UserError(f"task {name} cannot be explained: give a run of {', '.join(can[:-1])} or {can[-1]}")
