"""Checkpoints: one safetensors file a round, written atomically, the last two kept."""

import json
from dataclasses import dataclass, field
from logging import WARNING
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.core.log import log
from models.core.seeds import STREAMS
from models.state import weights_sha256

FORMAT = "polyfed-checkpoint-1"
KEPT = 2


@dataclass
class Checkpoint:
    """All that the server needs to go on after a round."""

    server_round: int
    weights: dict[str, Tensor]
    """The federated state: parameters and statistics."""
    progress: dict[str, Any] = field(default_factory=dict)
    """What the round loop remembers, as JSON."""
    strategy: Any = None
    """What the strategy remembers, as JSON that points into `strategy_arrays`."""
    strategy_arrays: dict[str, Tensor] = field(default_factory=dict)
    streams: int = STREAMS
    """How the run derives its random numbers."""


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then drop all but the last two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model/{name}": tensor for name, tensor in checkpoint.weights.items()}
        tensors |= {f"strategy{path}": tensor for path, tensor in checkpoint.strategy_arrays.items()}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        metadata = {
            "format": FORMAT,
            "server_round": str(checkpoint.server_round),
            "streams": str(checkpoint.streams),
            "progress": json.dumps(checkpoint.progress),
            "strategy": json.dumps(checkpoint.strategy),
            "sha256": weights_sha256(tensors),
        }
        write_safetensors(self._path(checkpoint.server_round), tensors, metadata)
        for path in self._paths()[:-KEPT]:
            path.unlink()

    def oldest_round(self) -> int:
        """Return the round of the oldest checkpoint that is kept; 0 if there is none."""
        paths = self._paths()
        return int(paths[0].stem.removeprefix("round-")) if paths else 0

    def newest_round(self) -> int:
        """Return the round of the newest checkpoint, be it whole or not; 0 if there is none."""
        paths = self._paths()
        return int(paths[-1].stem.removeprefix("round-")) if paths else 0

    def load_newest(self, like: dict[str, Tensor]) -> Checkpoint | None:
        """Return the newest checkpoint that is whole and holds a model like `like`.

        One that is not is refused with a line in the log, and the one before it is tried.
        """
        for path in reversed(self._paths()):
            try:
                return self._load(path, like)
            except (SafetensorError, ValueError, KeyError, OSError) as error:
                log(WARNING, "Checkpoint %s is refused: %s", path, error)
        return None

    def _load(self, path: Path, like: dict[str, Tensor]) -> Checkpoint:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"it is no {FORMAT} file")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        if weights_sha256(tensors) != metadata["sha256"]:
            raise ValueError("its contents do not match its SHA-256")
        weights = {
            name.removeprefix("model/"): tensor
            for name, tensor in tensors.items()
            if name.startswith("model/")
        }
        if _shapes(weights) != _shapes(like):
            raise ValueError("it holds another model than this run trains")
        return Checkpoint(
            server_round=int(metadata["server_round"]),
            weights={name: weights[name] for name in like},  # a strategy may draw noise in this order
            progress=json.loads(metadata["progress"]),
            strategy=json.loads(metadata["strategy"]),
            strategy_arrays={
                name.removeprefix("strategy"): tensor
                for name, tensor in tensors.items()
                if name.startswith("strategy")
            },
            streams=int(metadata.get("streams", 1)),  # the first had no number
        )

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("round-*.safetensors"))

    def _path(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round:06d}.safetensors"


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file so that it is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    partial.replace(path)


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in state.items()}
