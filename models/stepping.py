"""Stepping an optimizer without what torch wraps around a step.

Torch reports every step and every clearing of gradients to its profiler, and to its compiler where a graph
ends. For a network of ten thousand weights that takes longer than the step itself. So does what SGD asks of
each weight by itself, in Python; here it is asked of all of them at once. The numbers are the same.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

UNUSUAL = ("weight_decay", "dampening", "nesterov", "maximize", "foreach", "differentiable", "fused")
"""Options of SGD that leave its step to torch where they are set."""
BUFFER = "momentum_buffer"
"""What torch's SGD calls the momentum in its state."""


def clear_gradients(optimizer: Optimizer) -> None:
    """Do as `optimizer.zero_grad()` does."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = None


def step(optimizer: Optimizer) -> None:
    """Do as `optimizer.step()` does, with the hooks that were registered on this optimizer."""
    if "step" in vars(optimizer):  # a schedule has put its own in place, and counts on being called
        optimizer.step()
        return
    for before in optimizer._optimizer_step_pre_hooks.values():
        before(optimizer, (), {})
    with torch.no_grad():
        if type(optimizer) is SGD and all(map(_is_plain, optimizer.param_groups)):
            for group in optimizer.param_groups:
                _step_plainly(optimizer, group)
        else:
            _bare(type(optimizer).step)(optimizer)
    for after in optimizer._optimizer_step_post_hooks.values():
        after(optimizer, (), {})


def _is_plain(group: Mapping[str, Any]) -> bool:
    """Return whether `_step_plainly` does what torch does with a group of SGD's weights."""
    return (
        type(group["lr"]) is float
        and not any(group[option] for option in UNUSUAL)
        and all(map(_is_usual, group["params"]))
    )


def _is_usual(weight: Tensor) -> bool:
    gradient = weight.grad
    return gradient is None or (gradient.is_cpu and not gradient.is_sparse and gradient.is_floating_point())


def _step_plainly(optimizer: Optimizer, group: Mapping[str, Any]) -> None:
    """Take the step of SGD with or without momentum, for all weights of a group at once.

    On a CPU torch goes through such a list in C++, with the same operations as for one weight after another.
    """
    weights = [weight for weight in group["params"] if weight.grad is not None]
    directions = [weight.grad for weight in weights]
    if not weights:
        return
    if momentum := group["momentum"]:
        held = [optimizer.state[weight] for weight in weights]
        buffers = [slots.get(BUFFER) for slots in held]
        if begun := [place for place, buffer in enumerate(buffers) if buffer is not None]:
            old = [buffers[place] for place in begun]
            torch._foreach_mul_(old, momentum)
            torch._foreach_add_(old, [directions[place] for place in begun])
        for slots, buffer, direction in zip(held, buffers, directions, strict=True):
            if buffer is None:
                slots[BUFFER] = direction.detach().clone()
        directions = [slots[BUFFER] for slots in held]
    torch._foreach_add_(weights, directions, alpha=-group["lr"])


@functools.cache
def _bare(wrapped: Callable[..., object]) -> Callable[..., object]:
    """Return an optimizer's own step, below all that wraps it."""
    bare: Callable[..., object] = inspect.unwrap(wrapped)
    return bare
