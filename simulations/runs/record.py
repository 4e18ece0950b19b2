"""What a run wrote, as one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.core.config import RunConfig

STATUSES = ("completed", "stopped", "failed")
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Failure:
    """One client that failed in one round."""

    server_round: int
    client: int
    error: str


@dataclass(frozen=True)
class Round:
    """One line of metrics.jsonl; round 0 is the evaluation of the initial model."""

    server_round: int
    train: Mapping[str, float]
    """Weighted means over the clients that trained."""
    evaluate: Mapping[str, float]
    """Metrics merged over the clients that evaluated; empty where none did."""
    by_client: Mapping[str, Mapping[int, float]]
    """Metric -> client -> what it found on its own rows; empty where none evaluated."""
    central: Mapping[str, float]
    """Metrics on the server's held-out rows; empty in rounds without."""
    clients: tuple[int, ...]
    failures: tuple[Failure, ...]
    seconds: Mapping[str, float]
    """Phase -> seconds, and "total"."""
    bytes_down: int
    bytes_up: int

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole round; where no total was written, of its phases."""
        return self.seconds.get("total", sum(self.seconds.values()))


@dataclass(frozen=True)
class Result:
    """result.json: how the run ended."""

    status: str
    """One of STATUSES."""
    reason: str
    """Why it stopped or failed."""
    metric: str
    """What the best model goes by; "" where the run failed too early to know."""
    maximize: bool
    best_round: int | None
    best: Mapping[str, float]
    final: Mapping[str, float]
    weights_sha256: str
    num_parameters: int
    seconds: float
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Partition:
    """partition.json: how many examples the first clients hold."""

    num_clients: int
    classes: tuple[str, ...]
    """Class names; empty for data without labels."""
    counts: np.ndarray[Any, np.dtype[np.int64]]
    """(clients listed, classes); (clients listed, 1) for data without labels."""


@dataclass(frozen=True)
class Transfer:
    """transfer.json: what a run began with."""

    source: str
    """The file of weights."""
    sha256: str
    """The hash of the weights in it."""
    entries: Mapping[str, Mapping[str, int]]
    """What happened -> part of the model -> to how many of its entries."""


@dataclass(frozen=True)
class Run:
    """A run folder; `result` is None while the run is under way, or if it was killed."""

    name: str
    path: Path
    config: RunConfig
    rounds: tuple[Round, ...]
    result: Result | None
    partition: Partition | None
    transfer: Transfer | None
    """None where the run began with nothing but its seed."""
    figures: Mapping[str, bytes]
    """Name -> SVG of the final model."""
    half_written: bool
    """Whether metrics.jsonl ends inside a line, which is left out."""

    @property
    def status(self) -> str:
        """One of STATUSES, or UNFINISHED."""
        return self.result.status if self.result else UNFINISHED

    @property
    def last_round(self) -> int:
        """The last round with metrics; 0 before any."""
        return self.rounds[-1].server_round if self.rounds else 0

    @property
    def metric(self) -> str:
        """The metric of the run, or, for one without a good end, the first measured beside the loss."""
        if self.result and self.result.metric:
            return self.result.metric
        measured = dict.fromkeys(name for line in self.rounds for name in line.central)
        return min(measured, key=lambda name: name == "loss", default="")

    @property
    def ended_with_metrics(self) -> bool:
        """Whether `final` is about the last model, not merely the last that was measured."""
        return bool(self.result and self.result.final)

    @property
    def final(self) -> Mapping[str, float]:
        """Metrics of the last model on held-out rows; without a result, the last that were measured."""
        if self.result and self.result.final:
            return self.result.final
        return next((line.central for line in reversed(self.rounds) if line.central), {})

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run; without a result, those of its rounds."""
        return self.result.seconds if self.result else sum(line.total_seconds for line in self.rounds)

    @property
    def bytes_down(self) -> int:
        """Bytes from the server to the clients."""
        return sum(line.bytes_down for line in self.rounds)

    @property
    def bytes_up(self) -> int:
        """Bytes from the clients to the server."""
        return sum(line.bytes_up for line in self.rounds)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every client failure, in the order of rounds."""
        return tuple(failure for line in self.rounds for failure in line.failures)
