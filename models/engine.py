"""How clients are trained where the run config leaves it open: `engine = "auto"`.

The choice follows from the config, the task and the shapes of its data alone, so that every process makes the
same one, and a run that goes on makes it again.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.core.config import TaskConfig
from models.core.seeds import generator_for
from models.data.dataset import Examples
from models.optimizers import NOT_ELEMENTWISE, choose
from models.registry import why_not_stackable
from models.task import Task

SMALL_STEP = 50e6
"""Floating-point operations of a step's forward pass up to which clients train side by side. Measured on two
CPUs: at 1 million a stack is about three times as fast as the loop, at 20 million 1.4 times, at 270 million
0.8 times."""


@dataclass(frozen=True)
class EngineChoice:
    """How a run's clients are trained."""

    name: Literal["loop", "stacked"]
    why: str
    """In a few words."""


def choose_engine(
    config: TaskConfig, task: Task, model: nn.Module, examples: Examples, *, personal: bool = False
) -> EngineChoice:
    """Return what the config says, or under "auto" what fits the task; `examples` are any of its data.

    `personal` says whether the strategy lets clients keep models of their own.
    """
    if config.engine != "auto":
        return EngineChoice(config.engine, "the run config says so")
    if why := _why_not(config, task, personal):
        return EngineChoice("loop", why)
    operations = _operations(task, model, examples) * config.batch_size
    size = f"a step is {operations / 1e6:.3g} million operations forward"
    if operations > SMALL_STEP:
        return EngineChoice("loop", f"{size}, over {SMALL_STEP / 1e6:.0f}")
    return EngineChoice("stacked", f"{size}, at most {SMALL_STEP / 1e6:.0f}")


def _why_not(config: TaskConfig, task: Task, personal: bool) -> str:
    """Return why clients cannot be trained side by side; "" where they can."""
    optimizers = [choose(objective, config).name for objective in task.objectives]
    whole = [name for name in optimizers if name in NOT_ELEMENTWISE]
    reasons = {
        "there is one client": config.num_clients == 1,
        "clients keep their optimizers": config.keep_optimizer,
        "channels-last is set": config.channels_last,
        "clients keep personal models": personal,
        f"task {config.task} {why_not_stackable(task)}": bool(why_not_stackable(task)),
        f"optimizer {''.join(whole[:1])} sees a weight as a whole": bool(whole),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _operations(task: Task, model: nn.Module, examples: Examples) -> float:
    """Return the floating-point operations of all objectives for one example, forward."""
    few = examples.take(torch.arange(min(len(examples), 2)))
    batch = next(iter(task.batches(model, few, generator_for(0, "engine"), len(few))))
    device = next(model.parameters()).device
    here = {name: column.to(device) for name, column in batch.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        for objective in task.objectives:
            objective.loss(model, here)
    return float(counted.get_total_flops()) / len(few)
