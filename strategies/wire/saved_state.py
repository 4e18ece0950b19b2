"""Which state of a client the server counts on: that of which round, and with which contents.

What a client remembers lies on its node's disk, and the server cannot see it. So a client says the hash of
what it has saved when it replies, the server keeps a list of these, and every request names the state that
the client is to go on from. A state that is lost, swapped or of a round that does not count is noticed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HASH = re.compile("[0-9a-fA-F]{64}")
# Folders a million clients spread over, so that no single folder holds them all.
FAN_OUT = 1000
SHA256 = "sha256"
"""Key of the hash in the header of a state's file."""


class LostStateError(Exception):
    """The state that the server counts on is not there, or is another one."""


@dataclass(frozen=True)
class SavedState:
    """A state that a client has saved."""

    server_round: int
    """The round after which it was saved."""
    sha256: str
    """The hash of its tensors, in hexadecimal."""

    def __post_init__(self) -> None:
        """Raise ValueError for what is no round or no hash: nodes and servers say anything."""
        if type(self.server_round) is not int:
            raise ValueError(f"the round of a state must be a whole number, got {self.server_round!r:.80}")
        if not HASH.fullmatch(self.sha256):
            raise ValueError(f"the hash of a state must be 64 hexadecimal digits, got {self.sha256[:80]!r}")


def client_folder(folder: Path, client: int) -> Path:
    """Return the folder of one client's states, in that of the run's clients."""
    return folder / f"{client % FAN_OUT:03d}" / f"client-{client}"


def state_file(folder: Path, client: int, server_round: int) -> Path:
    """Return the file of the state that a client saved after this round."""
    return client_folder(folder, client) / f"round-{server_round}.safetensors"


def pack_states(states: Mapping[int, SavedState]) -> str:
    """Return client -> state as text that travels."""
    return json.dumps([[client, each.server_round, each.sha256] for client, each in states.items()])


def unpack_states(text: str) -> dict[int, SavedState]:
    """Return what `pack_states` packed."""
    return {client: SavedState(server_round, sha256) for client, server_round, sha256 in json.loads(text)}
