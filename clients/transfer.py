"""A client's examples on their way to the GPU: once a round where that can be, or else batch by batch."""

import torch

from models.data.dataset import Examples
from models.task import Task

LARGEST = 1 << 30
"""Bytes of one client's examples that are moved as a whole. It is the same number on every machine: what is
computed of them may be rounded in another way there."""


def at_hand(task: Task, examples: Examples, device: torch.device) -> Examples:
    """Return the examples on the device where the task makes its batches there, and else as they are."""
    if device.type != "cuda" or examples.num_bytes > LARGEST or not makes_batches_anywhere(task):
        return examples
    return examples.to(device)


def makes_batches_anywhere(task: Task) -> bool:
    """Return whether the task makes its batches of examples on a GPU as well."""
    return promises(task, "batches_anywhere")


def promises(task: Task, promise: str) -> bool:
    """Return what a task says of its own batches; a class that overrides them must say it anew."""
    for cls in type(task).__mro__:
        if promise in vars(cls):
            return bool(getattr(task, promise))
        if "batch" in vars(cls) or "batches" in vars(cls):
            return False
    return False
