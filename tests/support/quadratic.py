"""Clients that each minimize a parabola: federations whose fixed points can be written down.

Given to runs as task "quadratic:Quadratic" and dataset "quadratic:valleys".
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
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

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0]))


class Quadratic(Task):
    """Each row is a parabola; an epoch is `steps` steps on it, or twice as many where they are `unequal`."""

    kind = "parabolas"
    metric = "distance"
    maximize = False
    stackable = True

    def __init__(self, dataset: Dataset, steps: int = 20, unequal: bool = False) -> None:
        super().__init__(dataset)
        self.steps, self.unequal = steps, unequal

    def build(self) -> nn.Module:
        return Point()

    @property
    def objectives(self) -> Sequence[Objective]:
        return [Objective("loss", _loss, optimizer=OptimizerChoice("sgd", 0.1))]

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        for _ in range(self.num_batches(data, batch_size)):
            yield dict(data.columns)

    def num_batches(self, data: Examples, batch_size: int) -> int:
        return self.steps * (2 if self.unequal and float(data["a"][0]) == CURVATURE[1] else 1)

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        return {"distance": (abs(float(_w(model)) - OPTIMUM), 1)}


def valleys(config: TaskConfig) -> Dataset:
    """Return the two parabolas, one a client; with examples-per-client unset each counts the same."""
    rows = Examples({"a": torch.tensor(CURVATURE), "b": torch.tensor(MINIMUM)})
    return Dataset("valleys", "parabolas", rows, rows, client=np.arange(2))


def crowded_valleys(config: TaskConfig) -> Dataset:
    """Return the two parabolas, the first one in three rows: a client with more examples of the same."""
    client = np.array([0, 0, 0, 1])
    rows = Examples({"a": torch.tensor(CURVATURE)[client], "b": torch.tensor(MINIMUM)[client]})
    return Dataset("crowded-valleys", "parabolas", rows, rows, client=client)


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return (batch["a"] / 2 * (_w(model) - batch["b"]) ** 2).mean()


def _w(model: nn.Module) -> Tensor:
    # Not get_parameter: of clients that are stacked, it is a plain tensor.
    weight: Tensor = model.w
    return weight
