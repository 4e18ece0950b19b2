"""The one training loop, for every family."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from clients.deadline import NEVER, Deadline, interrupted_after
from models.core.device import moved
from models.data.dataset import Examples
from models.state import start_training
from models.stepping import clear_gradients, step
from models.task import Batch, Objective, Task

T = TypeVar("T")
Optimizers = Sequence[tuple[Objective, torch.optim.Optimizer]]


def train_epochs(
    task: Task,
    model: nn.Module,
    data: Examples,
    optimizers: Optimizers,
    *,
    generator: torch.Generator,
    local_epochs: float,
    batch_size: int,
    device: torch.device,
    autocast: bool = False,
    deadline: Deadline = NEVER,
) -> dict[str, float]:
    """Train `model` in place on one client's examples; return the mean loss of each objective.

    `optimizers` holds each objective with its optimizer, whose step hooks carry the local rule. Raises
    FloatingPointError when a loss is no longer finite, ValueError when there is no batch, and LateError when
    the deadline passes, so that no such update reaches the server.
    """
    start_training(model, task.freeze)
    mixed_precision = torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext()
    losses: dict[str, list[tuple[Tensor, int]]] = {objective.name: [] for objective, _ in optimizers}
    seen = 0
    with interrupted_after(deadline):
        for batch in local_batches(task, model, data, generator, batch_size, local_epochs):
            deadline.check()
            here = moved(batch, device)
            for objective, optimizer in optimizers:
                clear_gradients(optimizer)
                with mixed_precision:
                    loss = objective.loss(model, here)
                loss.backward()
                step(optimizer)
                if count := objective.terms(batch):
                    losses[objective.name].append((loss.detach(), count))
            task.after_step(model)
            seen += len(next(iter(here.values())))
        deadline.check()
    totals = {name: total_loss(each) for name, each in losses.items()}
    terms = {name: sum(count for _, count in each) for name, each in losses.items()}
    return mean_losses(totals, terms, seen)


def local_batches(
    task: Task,
    model: nn.Module,
    data: Examples,
    generator: torch.Generator,
    batch_size: int,
    local_epochs: float,
) -> Iterator[Batch]:
    """Return the batches of all local epochs; of a last one that is a part of an epoch, its first batches."""
    return over_epochs(
        lambda: task.batches(model, data, generator, batch_size),
        lambda: task.num_batches(data, batch_size),
        local_epochs,
    )


def over_epochs(
    epoch: Callable[[], Iterator[T]], num_batches: Callable[[], int], local_epochs: float
) -> Iterator[T]:
    """Yield what comes in all local epochs; of a last one that is a part of an epoch, its first part."""
    for _ in range(int(local_epochs)):
        yield from epoch()
    if part := local_epochs % 1:
        wanted = part * num_batches()
        yield from islice(epoch(), max(1, math.ceil(wanted - 1e-9)))  # 0.7 * 10 is a little more than 7


def losses_at(
    task: Task,
    model: nn.Module,
    data: Examples,
    *,
    generator: torch.Generator,
    batch_size: int,
    device: torch.device,
    deadline: Deadline = NEVER,
) -> dict[str, float]:
    """Return the mean loss of each objective over one client's examples, of a model that is left as it is.

    But for what the batch stream itself does, as a DQN's, which acts and remembers.
    """
    model.eval()
    losses: dict[str, list[tuple[Tensor, int]]] = {objective.name: [] for objective in task.objectives}
    seen = 0
    with torch.no_grad(), interrupted_after(deadline):
        for batch in task.batches(model, data, generator, batch_size):
            deadline.check()
            here = moved(batch, device)
            for objective in task.objectives:
                if count := objective.terms(batch):
                    losses[objective.name].append((objective.loss(model, here), count))
            seen += len(next(iter(here.values())))
    totals = {name: total_loss(each) for name, each in losses.items()}
    terms = {name: sum(count for _, count in each) for name, each in losses.items()}
    return mean_losses(totals, terms, seen)


def total_loss(losses: Sequence[tuple[Tensor, int]]) -> float:
    """Return the sum of the batches' mean losses, each times its terms, in the type that torch computes in.

    They are read from the device once, after the last batch.
    """
    if not losses:
        return 0.0
    dtype = torch.get_default_dtype()
    if all(loss.is_cpu and loss.dtype == torch.float32 == dtype for loss, _ in losses):
        # As below, with less to do for a few batches of a small network.
        terms = [np.float32(loss.item()) * np.float32(count) for loss, count in losses]
        return float(np.add.accumulate(terms)[-1])
    means = torch.stack([loss for loss, _ in losses]).cpu()
    if means.dtype != dtype:  # which torch rounds to before it adds up
        means = torch.stack([mean * count for mean, (_, count) in zip(means, losses, strict=True)]).to(dtype)
        return float(np.add.accumulate(means.numpy())[-1])
    counts = np.array([count for _, count in losses], means.numpy().dtype)
    return float(np.add.accumulate(means.numpy() * counts)[-1])  # one after the other, as the batches came


def mean_losses(totals: Mapping[str, float], terms: Mapping[str, float], seen: int) -> dict[str, float]:
    """Return each objective's loss a client has had, on average over its terms; none for one without terms.

    Raises FloatingPointError when one is not finite, and ValueError when no example was seen.
    """
    if not seen:
        raise ValueError("the client's examples gave no batch to train on")
    losses = {name: total / terms[name] for name, total in totals.items() if terms[name]}
    for name, loss_value in losses.items():
        if not math.isfinite(loss_value):
            raise FloatingPointError(f"{name} is {loss_value} after {seen} examples: lower the learning rate")
    return losses
