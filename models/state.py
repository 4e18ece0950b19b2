"""Building a model repeatably, and naming its weights by their hash."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from models.core.errors import UserError
from models.core.seeds import derive_seed
from models.task import Task


def build_model(task: Task, seed: int) -> nn.Module:
    """Build the task's module with initial weights that follow from the run's seed alone, and freeze it.

    Raises UserError where the task's `local` or `freeze` has a pattern without a match, or they leave nothing
    to average.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "build"))
        model = task.build()
    _check_patterns("local", task.local, model.state_dict())
    # All names of a weight that is tied to another, as a language model's embedding is to its decoder.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    _check_patterns("freeze", task.freeze, parameters)
    for name, parameter in parameters.items():
        if _matches(name, task.freeze):
            parameter.requires_grad_(False)
    if not federated_names(model, task.local):
        given = f"local = {list(task.local)}, freeze = {list(task.freeze)}"
        raise UserError(f"{given} leaves nothing to average: name fewer weights")
    return model


def shareable_names(model: nn.Module, local: Sequence[str]) -> tuple[str, ...]:
    """Return the entries that the server may have and send: floating point and not matching `local`."""
    state = model.state_dict()
    return tuple(n for n, tensor in state.items() if tensor.is_floating_point() and not _matches(n, local))


def frozen_names(model: nn.Module) -> tuple[str, ...]:
    """Return the parameters that ask for no gradient."""
    parameters = model.named_parameters(remove_duplicate=False)
    return tuple(name for name, parameter in parameters if not parameter.requires_grad)


def federated_names(model: nn.Module, local: Sequence[str]) -> tuple[str, ...]:
    """Return the entries that are sent and averaged: those that can be shared and are not frozen."""
    frozen = set(frozen_names(model))
    return tuple(name for name in shareable_names(model, local) if name not in frozen)


def by_module(names: Iterable[str]) -> dict[str, list[str]]:
    """Group the entries of a state by the outermost part of the model that they belong to."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split(".")[0], []).append(name)
    return groups


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


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(option: str, patterns: Sequence[str], names: Iterable[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            parts = ", ".join(f"{module}*" for module in by_module(names))
            raise UserError(f"{option} pattern {pattern!r} matches nothing: the model has {parts}")
