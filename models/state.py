"""Building a model repeatably, and naming its weights by their hash."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.seeds import derive_seed
from models.task import Task


def build_model(task: Task, seed: int) -> nn.Module:
    """Build the task's module with initial weights that follow from the run's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "build"))
        return task.build()


def describe_state(state: Mapping[str, Tensor]) -> list[str]:
    """Return a line for each entry, to compare models on two machines by."""
    return [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in state.items()]


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of a state, in the order of its names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
