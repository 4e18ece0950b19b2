"""Central evaluation: the global model on the held-out examples that no client has."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.device import choose_device, pinned, place
from models.core.seeds import generator_for
from models.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CentralEvaluation:
    """The server's own copy of the model."""

    def __init__(self, task: Task, model: nn.Module, config: TaskConfig) -> None:
        self.task = task
        self.config = config
        device = choose_device(config.device, torch.cuda.device_count(), granted=None)
        self.model = place(model, device, config.channels_last)

    def metrics(self, weights: dict[str, Tensor]) -> dict[str, float]:
        """Return the task's metrics for these weights; without those that the examples leave undefined."""
        if not len(self.task.dataset.test):
            return {}
        self._load(weights)
        with pinned(self.config.threads), torch.no_grad():
            # The same draws in every round, so that rounds compare.
            generator = generator_for(self.config.seed, "central")
            return self.task.ratios(self.task.evaluate(self.model, self.task.dataset.test, generator))

    def figures(self, weights: dict[str, Tensor]) -> dict[str, "Figure"]:
        """Return the task's figures for these weights."""
        self._load(weights)
        with pinned(self.config.threads), torch.no_grad():
            return self.task.figures(
                self.model, self.task.dataset.test, generator_for(self.config.seed, "figures")
            )

    def _load(self, weights: dict[str, Tensor]) -> None:
        # What stays with the clients keeps the server's initial values.
        self.model.load_state_dict(weights, strict=False)
        self.model.eval()
