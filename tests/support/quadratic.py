"""Clients that each minimize a parabola: federations whose fixed points can be written down.

Given to runs as task "quadratic:Quadratic" and dataset "quadratic:valleys".
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.data.dataset import Dataset, Examples
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

CURVATURE, MINIMUM = (1.0, 4.0), (0.0, 1.0)
"""Of the loss a / 2 * (w - b)^2 of client 0, and of client 1."""
OPTIMUM = 0.8
"""Where the mean of the two losses is least: sum(a b) / sum(a)."""


class Point(nn.Module):
    w: Tensor
    part: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0]))


class Quadratic(Task):
    """Each row is a parabola; an epoch is `steps` steps on it, or twice as many where they are `unequal`."""

    kind = "parabolas"
    metric = "distance"
    maximize = False
    stackable = True

    def __init__(self, dataset: Dataset, steps: int = 20, unequal: bool = False, warmup: int = 0) -> None:
        super().__init__(dataset)
        self.steps, self.unequal, self.warmup = steps, unequal, warmup

    def build(self) -> nn.Module:
        return Point()

    @property
    def objectives(self) -> Sequence[Objective]:
        optimizer = OptimizerChoice("sgd", 0.1)
        return [Objective("loss", self.loss, optimizer=optimizer, warmup_steps=self.warmup)]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return (batch["a"] / 2 * (_w(model) - batch["b"]) ** 2).mean()

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        for _ in range(self.num_batches(data, batch_size)):
            yield dict(data.columns)

    def num_batches(self, data: Examples, batch_size: int) -> int:
        return self.steps * (2 if self.unequal and float(data["b"][0]) == MINIMUM[1] else 1)

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        return {"distance": (abs(float(_w(model)) - OPTIMUM), 1)}


class Idle(Quadratic):
    """The first client's loss, and every second batch of the second one's, does not depend on `part`."""

    def __init__(self, dataset: Dataset, zeros: bool = False, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.zeros = zeros
        """Whether the losses depend on it all the same, with gradients of zero."""

    def build(self) -> nn.Module:
        point = Point()
        point.part = nn.Parameter(torch.tensor([2.0, -1.0]))
        point.idle = nn.Parameter(torch.tensor([1.0]))
        return point

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        for index, batch in enumerate(super().batches(model, data, generator, batch_size)):
            uses = index % 2 * float(data["b"][0])
            yield {**batch, "uses": torch.full((len(data),), uses)}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = super().loss(model, batch)
        weight: Tensor = model.part
        uses = batch["uses"].mean()
        return loss + uses * (weight**2).sum() / 2 if self.zeros or uses else loss


class Slopes(Quadratic):
    """Rows are straight lines of slope a, so that gradients are the same everywhere."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return (batch["a"] * _w(model)).mean()


def valleys(config: TaskConfig) -> Dataset:
    """Return the two parabolas, one a client; with examples-per-client unset each counts the same."""
    rows = Examples({"a": torch.tensor(CURVATURE), "b": torch.tensor(MINIMUM)})
    return Dataset("valleys", "parabolas", rows, rows, client=np.arange(2))


def crowded_valleys(config: TaskConfig) -> Dataset:
    """Return the two parabolas, the first one in three rows: a client with more examples of the same."""
    client = np.array([0, 0, 0, 1])
    rows = Examples({"a": torch.tensor(CURVATURE)[client], "b": torch.tensor(MINIMUM)[client]})
    return Dataset("crowded-valleys", "parabolas", rows, rows, client=client)


def twin_valleys(config: TaskConfig) -> Dataset:
    """Return two parabolas of one curvature; the mean of the two losses is least at 0.5."""
    rows = Examples({"a": torch.ones(2), "b": torch.tensor(MINIMUM)})
    return Dataset("twin-valleys", "parabolas", rows, rows, client=np.arange(2))


def slopes(config: TaskConfig) -> Dataset:
    """Return a line that rises and one that falls as much, one a client."""
    rows = Examples({"a": torch.tensor([1.0, -1.0]), "b": torch.tensor(MINIMUM)})
    return Dataset("slopes", "parabolas", rows, rows, client=np.arange(2))


def _w(model: nn.Module) -> Tensor:
    # Not get_parameter: of clients that are stacked, it is a plain tensor.
    weight: Tensor = model.w
    return weight


def idle_state(folder: Path) -> dict[str, list[float]]:
    """Return the weights that a run of `Idle` ended with."""
    return {
        name: tensor.tolist() for name, tensor in load_file(folder / "models" / "last.safetensors").items()
    }
