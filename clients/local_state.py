"""What a client remembers between rounds, on the disk of the node that hosts it.

One safetensors file per client and round: "the newest state older than this round" makes resuming exact,
and no file is ever half written.
"""

import os
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

# Folders a million clients spread over, so that no single folder holds them all.
FAN_OUT = 1000


class LocalState:
    """The files of one client."""

    def __init__(self, folder: Path, client: int) -> None:
        self.folder = folder / f"{client % FAN_OUT:03d}" / f"client-{client}"

    def load(self, server_round: int) -> dict[str, Tensor]:
        """Return the newest state that is older than this round; empty if there is none."""
        older = [saved for saved in self._rounds() if saved < server_round]
        return load_file(self._path(max(older))) if older else {}

    def save(self, server_round: int, state: dict[str, Tensor], checkpoint_round: int) -> None:
        """Write the state after this round, and drop what no resume from `checkpoint_round` can ask for.

        A run that goes on from that checkpoint starts with the newest state up to its round.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{os.getpid()}.partial"
        # Clones: safetensors refuses tensors that share memory, as tied weights do.
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, partial)
        partial.replace(self._path(server_round))
        restorable = [saved for saved in self._rounds() if saved <= checkpoint_round]
        for saved in restorable[:-1]:
            self._path(saved).unlink()

    def _rounds(self) -> list[int]:
        return sorted(
            int(path.stem.removeprefix("round-")) for path in self.folder.glob("round-*.safetensors")
        )

    def _path(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round}.safetensors"
