"""The server's list of what clients remember: whose newest state is of which round, and its hash.

A checkpoint holds the list. It names the clients that have a state and no other, and grows by a row a client:
what a round costs depends on who took part in it, not on how many clients there are.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from strategies.wire.saved_state import SHA256, SavedState, state_file

CLIENTS, ROUNDS, HASHES, LOST = "clients", "rounds", "hashes", "lost"
KINDS = {CLIENTS: (torch.int64, ()), ROUNDS: (torch.int64, ()), HASHES: (torch.uint8, (32,)),
         LOST: (torch.int64, ())}  # fmt: skip
"""Column -> type and shape of a row's entry."""
FIRST_ROWS = 16


class StateLedger:
    """Client -> the newest state that it has told of."""

    def __init__(self) -> None:
        self._row: dict[int, int] = {}
        self._clients = np.zeros(FIRST_ROWS, np.int64)
        self._rounds = np.zeros(FIRST_ROWS, np.int64)
        self._hashes = np.zeros((FIRST_ROWS, 32), np.uint8)
        self.lost: set[int] = set()
        """Clients that have lost a state, and have begun anew since."""

    def get(self, client: int) -> SavedState | None:
        """Return the client's state; None where it has none."""
        row = self._row.get(client)
        if row is None:
            return None
        return SavedState(int(self._rounds[row]), self._hashes[row].tobytes().hex())

    def items(self) -> Iterator[tuple[int, SavedState]]:
        """Yield each client that has a state, with it."""
        for client in self._row:
            state = self.get(client)
            assert state is not None
            yield client, state

    def add(self, states: Mapping[int, SavedState]) -> None:
        """Take down what clients have saved."""
        for client, state in states.items():
            row = self._row.setdefault(client, len(self._row))
            if row == len(self._clients):
                self._clients, self._rounds, self._hashes = (
                    np.concatenate([column, np.zeros_like(column)])
                    for column in (self._clients, self._rounds, self._hashes)
                )
            self._clients[row], self._rounds[row] = client, state.server_round
            self._hashes[row] = np.frombuffer(bytes.fromhex(state.sha256), np.uint8)

    def lose(self, client: int) -> None:
        """Take down that a client's state is lost: it begins anew."""
        self.lost.add(client)
        row = self._row.pop(client, None)
        if row is None or row == len(self._row):
            return
        last = len(self._row)  # takes the free row's place
        self._row[int(self._clients[last])] = row
        for column in (self._clients, self._rounds, self._hashes):
            column[row] = column[last]

    def tensors(self) -> dict[str, Tensor]:
        """Return the columns, as a checkpoint holds them; they share the ledger's memory."""
        rows = len(self._row)
        return {
            CLIENTS: torch.from_numpy(self._clients[:rows]),
            ROUNDS: torch.from_numpy(self._rounds[:rows]),
            HASHES: torch.from_numpy(self._hashes[:rows]),
            LOST: torch.tensor(sorted(self.lost), dtype=torch.int64),
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> "StateLedger":
        """Return what `tensors` gave; raise ValueError for anything else."""
        found = {name: (each.dtype, tuple(each.shape[1:])) for name, each in tensors.items()}
        if found != KINDS or len({len(tensors[name]) for name in (CLIENTS, ROUNDS, HASHES)}) > 1:
            raise ValueError(f"its list of clients' states has other columns than {', '.join(KINDS)}")
        ledger = StateLedger()
        clients = tensors[CLIENTS].tolist()
        if clients:
            ledger._row = {client: row for row, client in enumerate(clients)}
            ledger._clients, ledger._rounds, ledger._hashes = (
                tensors[name].numpy().copy() for name in (CLIENTS, ROUNDS, HASHES)
            )
        if len(ledger._row) < len(clients):
            raise ValueError("its list of clients' states has a client twice")
        ledger.lost = set(tensors[LOST].tolist())
        return ledger

    def check(self, folder: Path) -> None:
        """Raise ValueError where a state is not in `folder`, or another is in its place.

        Headers are read, not the tensors: those are checked by whoever loads them.
        """
        for client, state in self.items():
            path = state_file(folder, client, state.server_round)
            if _sha256(path) != state.sha256:
                what = "is another" if path.exists() else "is gone"
                raise ValueError(
                    f"the state that client {client} had after round {state.server_round} {what} ({path})"
                )


def _sha256(path: Path) -> str | None:
    """Return the hash in a file's header; None where there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(SHA256)
    except (OSError, SafetensorError):
        return None
