"""Optimizers by name, over the parameters that an objective trains."""

import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from models.core.config import TaskConfig, parse_options
from models.core.errors import UserError, unknown
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
    task: Task, parameters: Iterable[tuple[str, nn.Parameter]], config: TaskConfig
) -> list[tuple[Objective, torch.optim.Optimizer]]:
    """Return a fresh optimizer for each of the task's objectives, in their order.

    All of them work elementwise, so parameters may be those of several clients, stacked.

    Raises UserError for an unknown optimizer, or options that it does not take.
    """
    made, named = [], list(parameters)
    for objective in task.objectives:
        optimizer = _make_optimizer(objective, named, choose(objective, config))
        _install_schedule(objective, optimizer)
        made.append((objective, optimizer))
    return made


def choose(objective: Objective, config: TaskConfig) -> OptimizerChoice:
    """Let the run config override the objective's own choice, key by key.

    Another optimizer drops the options of the task's own, which it may not take.
    """
    own = objective.optimizer
    name = config.optimizer or own.name
    options = dict(own.options) if name == own.name else {}
    options |= parse_options("optimizer-options", config.optimizer_options)
    return OptimizerChoice(name, config.learning_rate or own.learning_rate, options)


def _make_optimizer(
    objective: Objective, named: Iterable[tuple[str, nn.Parameter]], choice: OptimizerChoice
) -> torch.optim.Optimizer:
    if choice.name not in OPTIMIZERS:
        raise unknown("optimizer", choice.name, OPTIMIZERS)
    matching = [
        parameter
        for name, parameter in named
        if any(fnmatchcase(name, pattern) for pattern in objective.parameters)
    ]
    parameters = [parameter for parameter in matching if parameter.requires_grad]
    if not parameters:
        why = f"all {len(matching)} are frozen" if matching else f"none matches {objective.parameters}"
        raise UserError(f"objective {objective.name!r} trains no parameter: {why}")
    try:
        return OPTIMIZERS[choice.name](parameters, lr=choice.learning_rate, **choice.options)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer-options do not fit {choice.name}: {error}") from error


def _install_schedule(objective: Objective, optimizer: torch.optim.Optimizer) -> None:
    """Clip gradients and warm up as the objective says, around every step."""
    if objective.max_grad_norm < math.inf:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]

        def clip(*_: object) -> None:
            nn.utils.clip_grad_norm_(weights, objective.max_grad_norm)

        optimizer.register_step_pre_hook(clip)
    if objective.warmup_steps > 1:
        steps = objective.warmup_steps
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
