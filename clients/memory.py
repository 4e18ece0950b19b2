"""What a client's state file holds of a model, and how the model is put together again.

Under a personalised strategy a client has two models: what the file holds of its own begins with PERSONAL.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from clients.loop import Optimizers
from clients.worker import Worker
from strategies.rule import PERSONAL

MODEL, OPTIMIZER = "model.", "optimizer."
"""Prefixes of what a client's state file holds."""


def shared_model(weights: Mapping[str, Tensor], remembered: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of the model that the clients share: the server's weights, and the client's parts."""
    return {**_with_prefix(MODEL, remembered), **weights}


def personal_model(weights: Mapping[str, Tensor], remembered: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of the client's own model; before it is trained for the first time, the server's."""
    return {**weights, **_with_prefix(MODEL, of_personal(remembered))}


def of_personal(remembered: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the file holds of the personal model, by the names that it has for the shared one."""
    return _with_prefix(PERSONAL, remembered)


def restore(worker: Worker, state: Mapping[str, Tensor]) -> None:
    """Put this state into the model; what it does not hold becomes as it was built."""
    with torch.no_grad():
        for name, tensor in worker.state.items():
            tensor.copy_(state.get(name, worker.initial[name]))


def own_state(worker: Worker, state: Mapping[str, Tensor], given: Collection[str]) -> dict[str, Tensor]:
    """Return what of a model's state the client must remember: the entries that it is not `given` each time.

    What is as it was built, such as frozen weights, need not be kept: it can be built again. Not so an
    averaged entry, for which the server's would be taken.
    """
    return {
        MODEL + name: tensor
        for name, tensor in state.items()
        if name not in given and (name in worker.federated or not torch.equal(tensor, worker.initial[name]))
    }


def optimizer_state(optimizers: Optimizers) -> dict[str, Tensor]:
    """Return what the optimizers go on with."""
    return {
        f"{OPTIMIZER}{objective.name}.{index}.{slot}": value
        for objective, optimizer in optimizers
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
        if isinstance(value, Tensor)
    }


def restore_optimizers(optimizers: Optimizers, remembered: Mapping[str, Tensor]) -> None:
    """Let the optimizers go on from what the client remembers."""
    for objective, optimizer in optimizers:
        saved = optimizer.state_dict()
        for name, tensor in _with_prefix(f"{OPTIMIZER}{objective.name}.", remembered).items():
            index, slot = name.split(".", 1)
            saved["state"].setdefault(int(index), {})[slot] = tensor
        optimizer.load_state_dict(saved)


def _with_prefix(prefix: str, remembered: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor for name, tensor in remembered.items() if name.startswith(prefix)
    }
