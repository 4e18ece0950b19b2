"""What a client remembers between rounds, and where: on the disk of the node that hosts it.

One safetensors file per client and round: "the newest state older than this round" makes resuming exact,
and no file is ever half written. This is the only file that knows what the tensors in it are called.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clients.loop import Optimizers

Tensors = Mapping[str, Tensor]

# Folders a million clients spread over, so that no single folder holds them all.
FAN_OUT = 1000
PERSONAL, RESIDUAL = "personal-", "residual."
"""Prefixes of what a file holds of the client's own model, and of what compression left out."""


@dataclass(frozen=True)
class ModelMemory:
    """What a client remembers of one model."""

    model: Tensors = field(default_factory=dict)
    """Entries of the model's state that the server does not give."""
    optimizer: Tensors = field(default_factory=dict)
    """OBJECTIVE.INDEX.SLOT -> what its optimizer keeps of a parameter."""
    rule: Tensors = field(default_factory=dict)
    """KIND/NAME -> what the local rule keeps beside a weight."""

    def __bool__(self) -> bool:
        """Return whether there is anything to remember."""
        return bool(self.model or self.optimizer or self.rule)

    def cloned(self) -> "ModelMemory":
        """Return copies, which stay as they are when the model goes on."""
        copies = (
            {name: tensor.clone() for name, tensor in getattr(self, part.name).items()}
            for part in fields(self)
        )
        return ModelMemory(*copies)

    def as_file(self, prefix: str = "") -> dict[str, Tensor]:
        """Return the tensors by the names that they have in a file."""
        return {
            f"{prefix}{part.name}.{name}": tensor
            for part in fields(self)
            for name, tensor in getattr(self, part.name).items()
        }

    @staticmethod
    def from_file(tensors: Tensors, prefix: str = "") -> "ModelMemory":
        """Return what `as_file` named."""
        return ModelMemory(*(_with_prefix(f"{prefix}{part.name}.", tensors) for part in fields(ModelMemory)))


@dataclass(frozen=True)
class ClientState:
    """What a client remembers between rounds."""

    shared: ModelMemory = field(default_factory=ModelMemory)
    """Of the model that the server averages."""
    personal: ModelMemory = field(default_factory=ModelMemory)
    """Of the client's own model, under a personalised strategy."""
    residual: Tensors = field(default_factory=dict)
    """What compression left out of the client's last reply."""

    def __bool__(self) -> bool:
        """Return whether there is anything to remember."""
        return bool(self.shared or self.personal or self.residual)

    def as_file(self) -> dict[str, Tensor]:
        """Return the tensors by the names that they have in a file."""
        residual = {RESIDUAL + name: tensor for name, tensor in self.residual.items()}
        return {**self.personal.as_file(PERSONAL), **self.shared.as_file(), **residual}

    @staticmethod
    def from_file(tensors: Tensors) -> "ClientState":
        """Return what `as_file` named; raise ValueError for a tensor that no client state has."""
        state = ClientState(
            ModelMemory.from_file(tensors),
            ModelMemory.from_file(tensors, PERSONAL),
            _with_prefix(RESIDUAL, tensors),
        )
        if unknown := sorted(tensors.keys() - state.as_file().keys()):
            raise ValueError(f"no client state has a tensor {unknown[0]!r}: another version has written it")
        return state


class ClientStates:
    """The states of one run's clients, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, client: int, before: int) -> ClientState:
        """Return the client's newest state that is older than round `before`; empty if there is none."""
        older = [saved for saved in self._rounds(client) if saved < before]
        return ClientState.from_file(load_file(self._path(client, max(older)))) if older else ClientState()

    def save(self, client: int, server_round: int, state: ClientState, restorable_round: int) -> None:
        """Write the state after this round, and drop what no resume from `restorable_round` can ask for.

        A run that goes on from that checkpoint starts with the newest state up to its round.
        """
        folder = self.of(client)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{os.getpid()}.partial"
        # Clones: safetensors refuses tensors that share memory, as tied weights do.
        tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.as_file().items()}
        save_file(tensors, partial)
        partial.replace(self._path(client, server_round))
        restorable = [saved for saved in self._rounds(client) if saved <= restorable_round]
        for saved in restorable[:-1]:
            self._path(client, saved).unlink()

    def of(self, client: int) -> Path:
        """Return the folder of one client."""
        return self.folder / f"{client % FAN_OUT:03d}" / f"client-{client}"

    def _rounds(self, client: int) -> list[int]:
        files = self.of(client).glob("round-*.safetensors")
        return sorted(int(path.stem.removeprefix("round-")) for path in files)

    def _path(self, client: int, server_round: int) -> Path:
        return self.of(client) / f"round-{server_round}.safetensors"


def shared_model(given: Tensors, remembered: ModelMemory) -> Tensors:
    """Return the state of the model that the clients share: what the server gives, and the client's parts."""
    return {**remembered.model, **given}


def personal_model(given: Tensors, remembered: ModelMemory) -> Tensors:
    """Return the state of the client's own model; before it is trained for the first time, the server's."""
    return {**given, **remembered.model}


def own_state(
    state: Tensors, initial: Tensors, given: Collection[str], federated: Collection[str]
) -> dict[str, Tensor]:
    """Return what of a model's state the client must remember: the entries that it is not `given` each time.

    What is as it was built (`initial`), such as frozen weights, need not be kept: it can be built again. Not
    so an averaged (`federated`) entry, for which the server's would be taken.
    """
    return {
        name: tensor
        for name, tensor in state.items()
        if name not in given and (name in federated or not torch.equal(tensor, initial[name]))
    }


def optimizer_state(optimizers: Optimizers) -> dict[str, Tensor]:
    """Return what the optimizers go on with."""
    return {
        f"{objective.name}.{index}.{slot}": value
        for objective, optimizer in optimizers
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
        if isinstance(value, Tensor)
    }


def restore_optimizers(optimizers: Optimizers, remembered: Tensors) -> None:
    """Let the optimizers go on from what the client remembers."""
    for objective, optimizer in optimizers:
        saved = optimizer.state_dict()
        for name, tensor in _with_prefix(f"{objective.name}.", remembered).items():
            index, slot = name.split(".", 1)
            saved["state"].setdefault(int(index), {})[slot] = tensor
        optimizer.load_state_dict(saved)


def _with_prefix(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
