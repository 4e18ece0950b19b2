"""How far the steps of an optimizer go, whatever the gradients are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import SGD, Optimizer


@dataclass
class StepCount:
    """Counts the steps that one group of an optimizer's weights takes in a round.

    SGD's steps are linear in the gradients: weight = anchor - sum_k c_k gradient_k, whatever momentum, step
    sizes and pulls to the anchor make of the c_k. Their sum is what gradients of 1 would have come to, so
    the recurrences of torch's SGD are done here once more, with 1 for the gradient.
    """

    pull: float
    """Strength with which the local rule pulls a weight back to its anchor."""
    buffered: float | None = None
    """What gradients of 1 would have made of the momentum buffer; None where there is none yet."""
    num_steps: int = 0
    path: float = 0.0
    """Sum of the step sizes."""
    gradient_sum: float = 0.0
    """Sum of the c_k. Of an optimizer other than SGD, as if it had no momentum."""

    def add(self, optimizer: Optimizer, group: Mapping[str, Any]) -> None:
        """Count a step."""
        step_size = float(group["lr"])
        direction = 1.0 - self.pull * self.gradient_sum
        if isinstance(optimizer, SGD) and group["momentum"]:
            momentum, fresh = float(group["momentum"]), direction
            # The first gradient enters the buffer whole, as in torch.
            entering = 1.0 if self.buffered is None else 1.0 - float(group["dampening"])
            self.buffered = momentum * (self.buffered or 0.0) + entering * fresh
            direction = fresh + momentum * self.buffered if group["nesterov"] else self.buffered
        self.num_steps += 1
        self.path += step_size
        self.gradient_sum += step_size * direction
