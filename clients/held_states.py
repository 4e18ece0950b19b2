"""What clients remember, on a node that shares no disk with the server's and keeps none of it.

A state comes with the work that it is for, and the new one goes back with the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from clients.state import ClientStates
from strategies.wire.saved_state import SHA256, SavedState, state_file


@dataclass(frozen=True)
class NewState:
    """A state on its way to where it is kept."""

    client: int
    server_round: int
    content: bytes
    """Of its file."""
    named: SavedState | None
    """What the server counts on, until it hears of this one."""
    restorable_round: int
    """The round of the checkpoint that a resumed run may go on from."""


class HeldStates(ClientStates):
    """The states of some clients in memory, those that are there and those that are new."""

    def __init__(
        self, folder: Path, named: Mapping[int, SavedState] | None, received: Mapping[int, bytes]
    ) -> None:
        """Take the folder that they come from, what the server has named, and client -> its file."""
        super().__init__(folder, named)
        self.received = received
        self.saved: list[NewState] = []

    def _read(self, client: int, server_round: int) -> dict[str, Tensor]:
        if client not in self.received:
            raise FileNotFoundError(state_file(self.folder, client, server_round))
        return load(self.received[client])

    def _keep(
        self, client: int, saved: SavedState, tensors: dict[str, Tensor], restorable_round: int
    ) -> None:
        content = save(tensors, {SHA256: saved.sha256})
        named = (self.named or {}).get(client)
        self.saved.append(NewState(client, saved.server_round, content, named, restorable_round))


def read_states(folder: Path, wanted: Mapping[int, SavedState]) -> dict[int, bytes]:
    """Return client -> the content of its state's file; what is gone is left out."""
    files = {client: state_file(folder, client, each.server_round) for client, each in wanted.items()}
    return {client: file.read_bytes() for client, file in files.items() if file.is_file()}


def write_states(folder: Path, states: list[NewState]) -> None:
    """Write states that have come back, and drop what nobody can ask for any more."""
    for new in states:
        named = {} if new.named is None else {new.client: new.named}
        write = partial(_write_bytes, new.content)
        ClientStates(folder, named).put(new.client, new.server_round, write, new.restorable_round)


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)
