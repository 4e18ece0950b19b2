"""What a client remembers between rounds, and where: on the disk of the node that hosts it.

One safetensors file per client and round, and no file is ever half written. A request names the state that
the client is to go on from, which makes resuming exact. This is the only file that knows what the tensors in
it are called.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clients.loop import Optimizers
from models.state import weights_sha256
from strategies.wire.saved_state import SHA256, LostStateError, SavedState, client_folder, state_file

Tensors = Mapping[str, Tensor]

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

    def __init__(self, folder: Path, named: Mapping[int, SavedState] | None = None) -> None:
        """Take the run's folder, and client -> the state that the server counts on.

        A client that is not among these counts as having none. Without `named` nobody has said.
        """
        self.folder = folder
        self.named = named

    def load(self, client: int, before: int) -> ClientState:
        """Return the client's state that the server has named; empty where it has none.

        Raises LostStateError where that is gone or another one. Where nobody has said which, it is the
        newest that is older than round `before`.
        """
        if self.named is None:
            older = [saved for saved in self._rounds(client) if saved < before]
            return (
                ClientState.from_file(load_file(self._path(client, max(older)))) if older else ClientState()
            )
        named = self.named.get(client)
        return self._load(client, named) if named else ClientState()

    def _load(self, client: int, named: SavedState) -> ClientState:
        path = self._path(client, named.server_round)
        try:
            tensors, what = self._read(client, named.server_round), "is another"
        except (OSError, SafetensorError):
            tensors, what = {}, "cannot be read" if path.exists() else "is gone"
        if what != "is another" or weights_sha256(tensors) != named.sha256:
            raise LostStateError(
                f"the state that client {client} had after round {named.server_round} {what} ({path}): it "
                "begins anew when it is asked next, unless the run is resumed with the file put back"
            )
        return ClientState.from_file(tensors)

    def save(self, client: int, server_round: int, state: ClientState, restorable_round: int) -> SavedState:
        """Write the state after this round, and drop what no resume from `restorable_round` can ask for.

        A run that goes on from that checkpoint starts with the newest state up to its round. What the server
        has named is kept as well, as this state may not reach it; what is newer than that never did, or is
        of rounds that are done again.
        """
        # Clones: safetensors refuses tensors that share memory, as tied weights do.
        tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.as_file().items()}
        saved = SavedState(server_round, weights_sha256(tensors))
        self._keep(client, saved, tensors, restorable_round)
        return saved

    def put(
        self, client: int, server_round: int, write: Callable[[Path], object], restorable_round: int
    ) -> None:
        """Have a state written, as a whole or not at all, and drop what `save` drops."""
        folder = self.of(client)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{os.getpid()}.partial"
        write(partial)
        partial.replace(self._path(client, server_round))
        self._prune(client, server_round, restorable_round)

    def _read(self, client: int, server_round: int) -> dict[str, Tensor]:
        return load_file(self._path(client, server_round))

    def _keep(
        self, client: int, saved: SavedState, tensors: dict[str, Tensor], restorable_round: int
    ) -> None:
        header = {SHA256: saved.sha256}
        self.put(client, saved.server_round, lambda path: save_file(tensors, path, header), restorable_round)

    def _prune(self, client: int, server_round: int, restorable_round: int) -> None:
        rounds = self._rounds(client)
        named, unknown = 0, set[int]()
        if self.named is not None:
            named = self.named[client].server_round if client in self.named else 0
            unknown = {saved for saved in rounds if saved > named and saved != server_round}
        restorable = [saved for saved in rounds if saved <= restorable_round and saved not in unknown]
        for saved in unknown.union(restorable[:-1]) - {named}:
            self._path(client, saved).unlink(missing_ok=True)

    def of(self, client: int) -> Path:
        """Return the folder of one client."""
        return client_folder(self.folder, client)

    def _rounds(self, client: int) -> list[int]:
        files = self.of(client).glob("round-*.safetensors")
        return sorted(int(path.stem.removeprefix("round-")) for path in files)

    def _path(self, client: int, server_round: int) -> Path:
        return state_file(self.folder, client, server_round)


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
