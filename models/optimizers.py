"""Optimizers by name, over the parameters that an objective trains."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from models.config import TaskConfig, parse_options
from models.errors import UserError, unknown
from models.task import Objective, OptimizerChoice, Task

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


def make_optimizers(
    task: Task, model: nn.Module, config: TaskConfig
) -> list[tuple[Objective, torch.optim.Optimizer]]:
    """Return a fresh optimizer for each of the task's objectives, in their order.

    Raises UserError for an unknown optimizer, or options that it does not take.
    """
    return [
        (objective, _make_optimizer(objective, model, choose(objective, config)))
        for objective in task.objectives
    ]


def choose(objective: Objective, config: TaskConfig) -> OptimizerChoice:
    """Let the run config override the objective's own choice, key by key.

    Another optimizer drops the options of the task's own, which it may not take.
    """
    own = objective.optimizer
    name = config.optimizer or own.name
    options = dict(own.options) if name == own.name else {}
    options |= parse_options("optimizer-options", config.optimizer_options)
    return OptimizerChoice(name, config.learning_rate or own.learning_rate, options)


def _make_optimizer(objective: Objective, model: nn.Module, choice: OptimizerChoice) -> torch.optim.Optimizer:
    if choice.name not in OPTIMIZERS:
        raise unknown("optimizer", choice.name, OPTIMIZERS)
    parameters = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and any(fnmatchcase(name, pattern) for pattern in objective.parameters)
    ]
    if not parameters:
        raise UserError(
            f"objective {objective.name!r} trains no parameter: none matches {objective.parameters}"
        )
    try:
        return OPTIMIZERS[choice.name](parameters, lr=choice.learning_rate, **choice.options)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer-options do not fit {choice.name}: {error}") from error
