"""Optimizers by name, over the parameters that an objective trains."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import NoneType
from typing import Any, get_args, get_origin

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.core.compiler import leave_out_compiler
from models.core.config import TaskConfig, checked, parse_options
from models.core.errors import UserError, unknown
from models.task import Objective, OptimizerChoice, Task

UNUSABLE: Mapping[str, str] = {
    "lbfgs": "it wants the loss several times a step",
    "sparseadam": "it wants sparse gradients, and networks here have dense ones",
}
"""Optimizers that cannot train here -> why."""
OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    name.lower(): cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
    if name.lower() not in UNUSABLE
}
"""All others of torch.optim, by their names in lower case."""
NOT_ELEMENTWISE = ("adafactor", "muon")
"""Those that see a weight as a whole, and would mix the weights of clients that are stacked."""
NO_OPTIONS: Mapping[str, str] = {
    "params": "the task's objectives choose the parameters",
    "lr": "set learning-rate",
    "capturable": "it is for CUDA graphs, which polyfed does not record",
    "differentiable": "it is for gradients through a step, which polyfed does not take",
    "foreach": "torch chooses it by itself",
}
"""Parameters of torch.optim that are no options here -> why, or what to do."""

Parameters = Iterable[tuple[str, nn.Parameter]]
Made = list[tuple[Objective, Optimizer]]


def make_optimizers(task: Task, parameters: Parameters, config: TaskConfig) -> Made:
    """Return a fresh optimizer for each of the task's objectives, in their order.

    Parameters may be those of several clients, stacked, where the run config's engine is.

    Raises UserError for an optimizer that is unknown or cannot work here, and for options that do not fit.
    """
    return optimizer_maker(task, parameters, config)()


def optimizer_maker(task: Task, parameters: Parameters, config: TaskConfig) -> Callable[[], Made]:
    """Return what makes such optimizers for the same parameters over and over: what to check is checked once.

    Raises UserError as `make_optimizers` does.
    """
    leave_out_compiler()
    named = list(parameters)
    recipes = [_recipe(objective, named, config) for objective in task.objectives]
    return lambda: [(recipe.objective, recipe.make()) for recipe in recipes]


@dataclass(frozen=True)
class _Recipe:
    """How to make an optimizer."""

    objective: Objective
    name: str
    groups: Sequence[Mapping[str, Any]]
    """Parameters, and their own options."""
    options: Mapping[str, Any]

    def make(self) -> Optimizer:
        """Return a fresh optimizer."""
        try:
            optimizer = OPTIMIZERS[self.name]([{**group} for group in self.groups], **self.options)
        except ValueError as error:  # torch's own checks of ranges and shapes
            raise UserError(f"optimizer {self.name} does not fit: {error}") from error
        _install_schedule(self.objective, optimizer)
        return optimizer


def choose(objective: Objective, config: TaskConfig) -> OptimizerChoice:
    """Let the run config override the objective's own choice, key by key.

    Another optimizer drops the options of the task's own, which it may not take.
    """
    own = objective.optimizer
    name = (config.optimizer or own.name).lower()
    options = dict(own.options) if name == own.name.lower() else {}
    options |= parse_options("optimizer-options", config.optimizer_options)
    return OptimizerChoice(name, config.learning_rate or own.learning_rate, options)


def _recipe(objective: Objective, named: Sequence[tuple[str, nn.Parameter]], config: TaskConfig) -> _Recipe:
    choice = choose(objective, config)
    if config.engine == "stacked" and choice.name in NOT_ELEMENTWISE:
        raise UserError(
            f'engine = "stacked" does not fit optimizer {choice.name}, which would mix the weights of '
            'clients: set engine = "loop", or another optimizer'
        )
    if choice.name in UNUSABLE:
        raise UserError(f"optimizer {choice.name!r} cannot train here: {UNUSABLE[choice.name]}")
    if choice.name not in OPTIMIZERS:
        raise unknown("optimizer", choice.name, OPTIMIZERS)
    matching = [(name, parameter) for name, parameter in named if _matches(name, objective.parameters)]
    trained = [(name, parameter) for name, parameter in matching if parameter.requires_grad]
    if not trained:
        why = f"all {len(matching)} are frozen" if matching else f"none matches {objective.parameters}"
        raise UserError(f"objective {objective.name!r} trains no parameter: {why}")
    options = _check_options(choice)
    groups: list[dict[str, Any]] = [{"params": [parameter for _, parameter in trained]}]
    if options.get("weight_decay") and objective.not_decayed:
        groups = _apart(trained, objective.not_decayed)
    return _Recipe(objective, choice.name, groups, {"lr": choice.learning_rate, **options})


def _apart(trained: Iterable[tuple[str, nn.Parameter]], not_decayed: Sequence[str]) -> list[dict[str, Any]]:
    """Return the groups of what decays, and of what does not; none is empty."""
    members: dict[bool, list[nn.Parameter]] = {}
    for name, parameter in trained:
        members.setdefault(_matches(name, not_decayed), []).append(parameter)
    options: dict[bool, dict[str, Any]] = {False: {}, True: {"weight_decay": 0.0}}
    return [{"params": members[apart], **options[apart]} for apart in (False, True) if apart in members]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_options(choice: OptimizerChoice) -> dict[str, Any]:
    """Return the options as the optimizer takes them: a whole number passes for a float, a list for a tuple.

    Raises UserError for an option that it does not take, or not of that type.
    """
    kinds = _kinds_of_options(choice.name)
    options = {}
    for option, value in choice.options.items():
        if option in NO_OPTIONS:
            raise UserError(f"{option!r} is no option of optimizer {choice.name}: {NO_OPTIONS[option]}")
        if option not in kinds:
            raise unknown(f"option of optimizer {choice.name}", option, kinds)
        kind = kinds[option]
        if isinstance(kind, type):
            options[option] = checked(option, value, kind)
            continue
        if not isinstance(value, list | tuple) or len(value) != len(kind):
            raise UserError(f"{option} must be a list of {len(kind)} numbers, got {value!r}")
        options[option] = tuple(map(functools.partial(checked, option), value, kind))
    return options


@functools.cache  # asked for every client, and the same for all
def _kinds_of_options(name: str) -> Mapping[str, type | tuple[type, ...]]:
    """Return option -> its type, or the types of the entries of its list."""
    parameters = inspect.signature(OPTIMIZERS[name]).parameters
    return {
        option: tuple(map(_plain, get_args(parameter.annotation)))
        if get_origin(parameter.annotation) is tuple
        else _plain(parameter.annotation)
        for option, parameter in parameters.items()
        if option not in NO_OPTIONS
    }


def _plain(annotation: Any) -> type:
    """Return what a run config can hold of an annotation such as `float | Tensor` or `bool | None`."""
    kind: type
    (kind,) = (kind for kind in get_args(annotation) or (annotation,) if kind not in (NoneType, Tensor))
    return kind


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
