"""Central evaluation: the global model on examples that no client has.

Validation examples choose, among rounds and among runs; where there are none, the test examples do. Test
examples are read when nothing is left to choose.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.device import choose_device, pinned, place
from models.core.seeds import generator_for
from models.data.dataset import Examples
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

    @property
    def validates(self) -> bool:
        """Whether there are validation examples, so that the test examples choose nothing."""
        return self.task.dataset.validation is not None

    @property
    def examples(self) -> str:
        """What the examples are called that choose."""
        return "validation examples" if self.validates else "held-out examples"

    def metrics(self, weights: dict[str, Tensor]) -> dict[str, float]:
        """Return the task's metrics for these weights, by which is chosen."""
        # The same draws in every round, so that rounds compare.
        return self._metrics(weights, self.task.dataset.validation or self.task.dataset.test, "central")

    def test_metrics(self, weights: dict[str, Tensor]) -> dict[str, float]:
        """Return the task's metrics for these weights on the test examples."""
        return self._metrics(weights, self.task.dataset.test, "test" if self.validates else "central")

    def figures(self, weights: dict[str, Tensor], *, at_end: bool) -> dict[str, "Figure"]:
        """Return the task's figures for these weights, at the run's end of the test examples."""
        dataset = self.task.dataset
        data = dataset.test if at_end else dataset.validation or dataset.test
        self._load(weights)
        with pinned(self.config.threads), torch.no_grad():
            return self.task.figures(self.model, data, generator_for(self.config.seed, "figures"))

    def _metrics(self, weights: dict[str, Tensor], data: Examples, purpose: str) -> dict[str, float]:
        """Return the task's metrics, without those that the examples leave undefined."""
        if not len(data):
            return {}
        self._load(weights)
        with pinned(self.config.threads), torch.no_grad():
            generator = generator_for(self.config.seed, purpose)
            return self.task.ratios(self.task.evaluate(self.model, data, generator))

    def _load(self, weights: dict[str, Tensor]) -> None:
        # What stays with the clients keeps the server's initial values.
        self.model.load_state_dict(weights, strict=False)
        self.model.eval()
