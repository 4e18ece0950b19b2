"""A model that a run has kept, with its task and data: what is explained, talked with and played by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.core.config import TaskConfig, read
from models.core.errors import UserError
from models.core.tracebacks import plain_line
from models.data.datasets import load_dataset
from models.registry import load_task
from models.state import build_model, model_state, shareable_names
from models.task import Task
from server.label_agreement import agreed_before, with_labels
from server.run_schema import START_MODEL
from server.starting_point import StartingPoint, kept_model, run_and_model
from server.weights_file import read_weights
from simulations.runs.reader import read_run
from simulations.runs.record import Run


@dataclass(frozen=True)
class KeptModel:
    """One of a run's models."""

    run: Run
    config: TaskConfig
    """With the labels that the nodes of the run agreed on."""
    task: Task
    model: nn.Module
    """On the CPU, in eval mode; what stays with the clients, and is in no file, as it was before training."""
    weights: StartingPoint
    """The file of the weights, and what a person should know of it."""
    held: Mapping[str, Tensor]
    """The weights in it."""


def load_kept_model(
    given: Path,
    wanted_for: str,
    check: Callable[[Run, TaskConfig], None] = lambda *_: None,
    *,
    which: str = "",
    whole: bool = False,
) -> KeptModel:
    """Load the model that RUN, RUN:best, RUN:last or `which` names, else the one that `init-from` would take.

    `check` is asked before data is loaded. With `whole`, what stays with the clients must be in the file too.
    Raises UserError, which says what it was `wanted_for`, for what is no run, has kept no model, or one that
    does not fit the run's config.
    """
    folder, named = run_and_model(str(given))
    before_colon = Path(str(given).rpartition(":")[0])
    if not folder.exists() and ":" in given.name and before_colon.is_dir():
        raise UserError(
            f"{wanted_for} {given} is not there: give {before_colon}, {before_colon}:best or "
            f"{before_colon}:last"
        )
    run = read_run(folder)
    config = read(TaskConfig, with_labels(run.config, agreed_before(run.path)))
    check(run, config)
    weights = kept_model(run.path, which or named, wanted_for)
    task = load_task(config, load_dataset(config))
    model = begun_model(run, config, task, wanted_for)
    held = _load(model, weights.path, wanted_for)
    if lacking := [name for name in shareable_names(model, task.local) if name not in held]:
        raise UserError(
            f"{wanted_for} {weights.path} lacks {len(lacking)} weights of the model, such as {lacking[0]}: "
            "it was made by other code; run again"
        )
    if whole and (lacking := [name for name in model_state(model) if name not in held]):
        raise UserError(
            f"{wanted_for} {weights.path} lacks {lacking[0]}, which stays with the clients: give a run that "
            "averages the whole model"
        )
    return KeptModel(run, config, task, model.eval(), weights, held)


def begun_model(run: Run, config: TaskConfig, task: Task, wanted_for: str) -> nn.Module:
    """Return the model that a run's training began with."""
    model = build_model(task, config.seed)
    start = run.path / START_MODEL
    if start.exists():
        _load(model, start, wanted_for)
    return model


def _load(model: nn.Module, path: Path, wanted_for: str) -> dict[str, Tensor]:
    """Load a file of weights into a model, and return them; UserError where one has no place there."""
    held = read_weights(path, f"{wanted_for} ")
    state = model_state(model)
    for name, tensor in held.items():
        if name not in state or state[name].shape != tensor.shape:
            raise UserError(
                f"{wanted_for} {path} has a weight {plain_line(name)} of shape {tuple(tensor.shape)}, for "
                "which the model of its config has no place: it was made by other code; run again"
            )
    with torch.no_grad():
        model.load_state_dict(held, strict=False)
    return held
