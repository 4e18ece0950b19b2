"""What a run wrote, as one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.core.config import RunConfig
from server.run_schema import PartitionCounts, RoundRecord, RunResult, TransferSummary

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Failure:
    """One client that failed in one round."""

    server_round: int
    client: int
    error: str


@dataclass(frozen=True)
class Run:
    """A run folder; `result` is None while the run is under way, or if it was killed."""

    name: str
    path: Path
    config: RunConfig
    """Every key, with its default where an older polyfed did not have it."""
    rounds: tuple[RoundRecord, ...]
    result: RunResult | None
    partition: PartitionCounts | None
    transfer: TransferSummary | None
    """None where the run began with nothing but its seed."""
    figures: Mapping[str, bytes]
    """Name -> SVG of the final model."""
    half_written: bool
    """Whether metrics.jsonl ends inside a line, which is left out."""

    @property
    def status(self) -> str:
        """How it ended, or UNFINISHED."""
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
        """Metrics of the last model on held-out examples; without a result, the last that were measured."""
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
        return sum(line.bytes.down for line in self.rounds)

    @property
    def bytes_up(self) -> int:
        """Bytes from the clients to the server."""
        return sum(line.bytes.up for line in self.rounds)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every client failure, in the order of rounds."""
        return tuple(
            Failure(line.server_round, failure.client, failure.error)
            for line in self.rounds
            for failure in line.failures
        )
