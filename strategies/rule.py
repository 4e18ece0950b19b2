"""The client half of a strategy."""

from collections.abc import Mapping

import torch
from torch import Tensor


class LocalRule:
    """Changes the gradients of every optimizer step on a client.

    The loop installs it with `register_step_pre_hook`, so it holds for every objective of every task.
    Its formula works elementwise on tensors of any shape.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        """Read what the strategy sent to this client in this round."""

    def gradient(self, gradient: Tensor, weight: Tensor, anchor: Tensor) -> Tensor:
        """Return the gradient to step with; `anchor` is the weight that the server sent."""
        raise NotImplementedError


def install(rule: LocalRule, optimizer: torch.optim.Optimizer, anchors: Mapping[Tensor, Tensor]) -> None:
    """Let the rule change every gradient before every step; `anchors` maps each weight to the server's."""

    def before_step(*_: object) -> None:
        with torch.no_grad():
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:
                        weight.grad.copy_(rule.gradient(weight.grad, weight, anchors[weight]))

    optimizer.register_step_pre_hook(before_step)
