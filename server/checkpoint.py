"""Checkpoints: one safetensors file a round, written atomically, the last few kept."""

import json
import math
import re
from collections.abc import Iterator
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
from models.core.tracebacks import line_of, plain_line
from models.state import weights_sha256
from server.state_ledger import StateLedger

FORMAT = "polyfed-checkpoint-1"
WEIGHTS, STRATEGY, STATES, PACE = "model/", "strategy", "states/", "pace/"
"""Prefixes of the names of tensors."""
NAME = re.compile(r"round-(\d+)\.safetensors")
SERVER_ROUND = "server_round"
"""Key of the round in the header of a checkpoint or a model."""
REFUSED = ".refused"
"""Suffix of a checkpoint that was set aside."""


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
    states: StateLedger | None = field(default_factory=StateLedger)
    """What clients remember; None for a run that an older polyfed began, which took down none of it."""
    pace: Any = None
    """What simulated time has come to, or who was under way on real nodes, as JSON; None where rounds wait
    for all of their clients, in no simulated time."""
    pace_tensors: dict[str, Tensor] = field(default_factory=dict)
    """Updates that have not arrived, in asynchronous rounds of a simulation."""
    streams: int = STREAMS
    """How the run derives its random numbers."""


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        """Take the folder, and how many checkpoints are kept there."""
        self.folder = folder
        self.keep = keep

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then drop all but the last ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {WEIGHTS + name: tensor for name, tensor in checkpoint.weights.items()}
        tensors |= {STRATEGY + path: tensor for path, tensor in checkpoint.strategy_arrays.items()}
        if checkpoint.states is not None:
            tensors |= {STATES + name: tensor for name, tensor in checkpoint.states.tensors().items()}
        tensors |= {PACE + name: tensor for name, tensor in checkpoint.pace_tensors.items()}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        metadata = {
            "format": FORMAT,
            SERVER_ROUND: str(checkpoint.server_round),
            "streams": str(checkpoint.streams),
            "progress": json.dumps(checkpoint.progress),
            "strategy": json.dumps(checkpoint.strategy),
            "pace": json.dumps(checkpoint.pace),
            "sha256": weights_sha256(tensors),
        }
        write_safetensors(self.path(checkpoint.server_round), tensors, metadata)
        for path in self._paths()[: -self.keep]:
            path.unlink()

    def oldest_round(self) -> int:
        """Return the round of the oldest checkpoint that is kept; 0 if there is none."""
        return min(map(_round_of, self._paths()), default=0)

    def newest_round(self) -> int:
        """Return the round of the newest checkpoint, be it whole or not; 0 if there is none."""
        return max(map(_round_of, self._paths()), default=0)

    def load_newest(self, like: dict[str, Tensor]) -> Checkpoint | None:
        """Return the first of `newest_first`."""
        return next(self.newest_first(like), None)

    def newest_first(
        self, like: dict[str, Tensor], before: float = math.inf, reasons: list[str] | None = None
    ) -> Iterator[Checkpoint]:
        """Yield the checkpoints of rounds before this one that are whole and hold a model like `like`.

        What is wrong with another one is said in the log, and added to `reasons`.
        """
        for path in reversed(self._paths()):
            if _round_of(path) >= before:
                continue
            try:
                checkpoint = self._load(path, like)
            except (SafetensorError, ValueError, OSError) as error:
                self.refuse(_round_of(path), error, reasons)
            else:
                yield checkpoint

    def refuse(self, server_round: int, why: Exception, reasons: list[str] | None = None) -> None:
        """Say that a checkpoint is not used, and add the reason to `reasons`."""
        said = plain_line(str(why)) if isinstance(why, ValueError) else line_of(why)
        log(WARNING, "Checkpoint %s is refused: %s", self.path(server_round), said)
        if reasons is not None:
            reasons.append(said)

    def set_aside(self, server_round: int) -> Path:
        """Rename a checkpoint so that it is one no longer; return its new path."""
        path = self.path(server_round)
        return path.rename(path.with_name(path.name + REFUSED))

    def _load(self, path: Path, like: dict[str, Tensor]) -> Checkpoint:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"it is no {FORMAT} file")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        if missing := {"server_round", "progress", "strategy", "sha256"} - metadata.keys():
            raise ValueError(f"its header lacks {', '.join(sorted(missing))}")
        if weights_sha256(tensors) != metadata["sha256"]:
            raise ValueError("its contents do not match its SHA-256")
        weights = _with_prefix(WEIGHTS, tensors)
        if _shapes(weights) != _shapes(like):
            raise ValueError("it holds another model than this run trains")
        if metadata["server_round"] != str(_round_of(path)):
            raise ValueError(f"it is of round {metadata['server_round']!r}, and named after another")
        states = _with_prefix(STATES, tensors)
        return Checkpoint(
            server_round=_round_of(path),
            weights={name: weights[name] for name in like},  # a strategy may draw noise in this order
            progress=json.loads(metadata["progress"]),
            strategy=json.loads(metadata["strategy"]),
            strategy_arrays=_with_prefix(STRATEGY, tensors),
            states=StateLedger.from_tensors(states) if states else None,
            pace=json.loads(metadata.get("pace", "null")),
            pace_tensors=_with_prefix(PACE, tensors),
            streams=int(metadata.get("streams", 1)),  # the first had no number
        )

    def _paths(self) -> list[Path]:
        numbered = [path for path in self.folder.glob("round-*.safetensors") if NAME.fullmatch(path.name)]
        return sorted(numbered, key=_round_of)

    def path(self, server_round: int) -> Path:
        """Return the file of a round's checkpoint."""
        return self.folder / f"round-{server_round:06d}.safetensors"


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file so that it is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    partial.replace(path)


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in state.items()}


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}


def _round_of(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    assert found
    return int(found[1])
