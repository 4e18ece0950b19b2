"""The one training loop, for every family."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import nn

from models.data.dataset import Examples
from models.state import start_training
from models.task import Objective, Task

Optimizers = Sequence[tuple[Objective, torch.optim.Optimizer]]


def train_epochs(
    task: Task,
    model: nn.Module,
    data: Examples,
    optimizers: Optimizers,
    *,
    generator: torch.Generator,
    local_epochs: int,
    batch_size: int,
    device: torch.device,
    autocast: bool = False,
) -> dict[str, float]:
    """Train `model` in place on one client's examples; return the mean loss of each objective.

    `optimizers` holds each objective with its optimizer, whose step hooks carry the local rule. Raises
    FloatingPointError when a loss is no longer finite, and ValueError when there is no batch, so that no
    such update reaches the server.
    """
    start_training(model, task.freeze)
    mixed_precision = torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext()
    totals = {objective.name: torch.zeros((), device=device) for objective, _ in optimizers}
    seen = 0
    for _ in range(local_epochs):
        for batch in task.batches(model, data, generator, batch_size):
            here = {name: column.to(device) for name, column in batch.items()}
            size = len(next(iter(here.values())))
            for objective, optimizer in optimizers:
                optimizer.zero_grad()
                with mixed_precision:
                    loss = objective.loss(model, here)
                loss.backward()
                optimizer.step()
                totals[objective.name] += loss.detach() * size
            task.after_step(model)
            seen += size
    return mean_losses({name: float(total) for name, total in totals.items()}, seen)


def losses_at(
    task: Task,
    model: nn.Module,
    data: Examples,
    *,
    generator: torch.Generator,
    batch_size: int,
    device: torch.device,
) -> dict[str, float]:
    """Return the mean loss of each objective over one client's examples, of a model that is left as it is.

    But for what the batch stream itself does, as a DQN's, which acts and remembers.
    """
    model.eval()
    totals = {objective.name: torch.zeros((), device=device) for objective in task.objectives}
    seen = 0
    with torch.no_grad():
        for batch in task.batches(model, data, generator, batch_size):
            here = {name: column.to(device) for name, column in batch.items()}
            size = len(next(iter(here.values())))
            for objective in task.objectives:
                totals[objective.name] += objective.loss(model, here) * size
            seen += size
    return mean_losses({name: float(total) for name, total in totals.items()}, seen)


def mean_losses(totals: Mapping[str, float], seen: int) -> dict[str, float]:
    """Return each objective's loss a client has had, on average over the examples that it has seen.

    Raises FloatingPointError when one is not finite, and ValueError when there was no example.
    """
    if not seen:
        raise ValueError("the client's examples gave no batch to train on")
    losses = {name: total / seen for name, total in totals.items()}
    for name, loss_value in losses.items():
        if not math.isfinite(loss_value):
            raise FloatingPointError(f"{name} is {loss_value} after {seen} examples: lower the learning rate")
    return losses
