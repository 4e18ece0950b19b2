"""A run's model as it was kept, with its task and data: what is explained."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.core.config import TaskConfig, read
from models.core.errors import UserError
from models.core.plugins import find
from models.data.datasets import load_dataset
from models.data.fingerprint import data_sha256
from models.registry import ENTRY_POINTS, TASKS, load_task, task_classes
from models.state import build_model, model_state, shareable_names, weights_sha256
from models.task import Task
from server.label_agreement import agreed_before, with_labels
from server.run_schema import START_MODEL
from server.starting_point import BEST, kept_model, round_of, run_and_model
from server.weights_file import read_weights
from simulations.runs.reader import read_run
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
    folder, wanted = run_and_model(str(given))
    run = read_run(folder)
    weights = kept_model(run.path, wanted, WANTED_FOR)
    config = read(TaskConfig, with_labels(run.config, agreed_before(run.path)))
    _check_offered(config.task)
    dataset = load_dataset(config)
    if not len(dataset.test):
        raise UserError(
            f"explain {run.path} has no held-out examples: give a run on data that holds some out"
        )
    task = load_task(config, dataset)
    if not task.explained_by:
        raise _not_offered(config.task)
    untrained = build_model(task, config.seed)
    start = run.path / START_MODEL
    if start.exists():
        _load(untrained, start)
    model = deepcopy(untrained)
    held = _load(model, weights.path)
    lacking = [name for name in shareable_names(model, task.local) if name not in held]
    if lacking:
        raise UserError(
            f"explain {weights.path} lacks {len(lacking)} weights of the model, such as {lacking[0]}: it was "
            "made by other code; run again"
        )
    digest = data_sha256(dataset)
    remarks = list(weights.remarks)
    if task.local:
        remarks.append(f"what stays with the clients ({', '.join(task.local)}) is as it was before training")
    used = run.result.used if run.result else None
    if used and used.data_sha256 and used.data_sha256 != digest:
        remarks.append("its data is not what it was when the run began")
    number = round_of(weights.path, run.path) if weights.path.stem == BEST else run.last_round
    which = weights.path.stem + ("" if number is None else f", of round {number}")
    return Kept(
        run, task, config, model.eval(), untrained.eval(), which, digest, weights_sha256(held), tuple(remarks)
    )


def _load(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Load a file of weights into a model, and return them; UserError where one has no place there."""
    held = read_weights(path, f"{WANTED_FOR} ")
    state = model_state(model)
    for name, tensor in held.items():
        if name not in state or state[name].shape != tensor.shape:
            raise UserError(
                f"explain {path} has a weight {name} of shape {tuple(tensor.shape)}, for which the model of "
                "its config has no place: it was made by other code; run again"
            )
    with torch.no_grad():
        model.load_state_dict(held, strict=False)
    return held


def _check_offered(name: str) -> None:
    """Raise UserError for a task that cannot be explained, before its data is loaded."""
    if not any(cls.explained_by for cls in task_classes(name, find(name, "task", TASKS, ENTRY_POINTS))):
        raise _not_offered(name)


def _not_offered(name: str) -> UserError:
    """Return the error for a task that cannot be explained, with those that can."""
    from simulations.catalogue.tasks import read_catalogue

    can = [
        each for each, found in read_catalogue().tasks.items() if any(cls.explained_by for cls in found.thing)
    ]
    return UserError(f"task {name} cannot be explained: give a run of {', '.join(can[:-1])} or {can[-1]}")
