"""Building a model repeatably, and naming its weights by their hash."""

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from models.errors import UserError
from models.seeds import derive_seed
from models.task import Task, is_federated


def build_model(task: Task, seed: int) -> nn.Module:
    """Build the task's module with initial weights that follow from the run's seed alone.

    Raises UserError where the task's `local` has a pattern without a match, or leaves nothing to average.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "build"))
        model = task.build()
    _check_local(model.state_dict(), task.local)
    return model


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


def _check_local(state: Mapping[str, Tensor], local: tuple[str, ...]) -> None:
    for pattern in local:
        if not any(fnmatchcase(name, pattern) for name in state):
            parts = dict.fromkeys(f"{name.split('.')[0]}*" for name in state)
            raise UserError(f"local pattern {pattern!r} matches nothing: the model has {', '.join(parts)}")
    if not any(is_federated(name, tensor, local) for name, tensor in state.items()):
        raise UserError(f"local = {list(local)} leaves nothing to average: name fewer weights")
