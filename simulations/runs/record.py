"""What a run wrote, as one frozen value."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from models.core.config import RunConfig
from models.core.plugins import offers
from server.run_schema import (
    ExplanationSummary,
    Metrics,
    PartitionCounts,
    RoundRecord,
    RunResult,
    Traffic,
    TransferSummary,
)

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Failure:
    """One client that failed in one round."""

    server_round: int
    client: int
    error: str


class Best(NamedTuple):
    """The round whose model is best, and what was measured of it."""

    server_round: int
    metrics: Mapping[str, float]


class Drawn(NamedTuple):
    """What `polyfed explain` kept of a method."""

    summary: ExplanationSummary
    png: bytes


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
    explanations: Mapping[str, Drawn] = field(default_factory=dict)
    """Method -> what `polyfed explain` found."""

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
        """The metric of the run; for one that was cut its task's, or the first measured beside the loss."""
        if self.result and self.result.metric:
            return self.result.metric
        measured = dict.fromkeys(name for line in self.rounds for name in line.central)
        declared = _declared_metric(str(self.config["task"])) if measured else None
        if declared and declared[0] in measured:
            return declared[0]
        return min(measured, key=lambda name: name == "loss", default="")

    @property
    def maximize(self) -> bool | None:
        """Whether more of `metric` is better; None where nobody says so."""
        if self.result and self.result.metric:
            return self.result.maximize
        declared = _declared_metric(str(self.config["task"]))
        return declared[1] if declared and declared[0] == self.metric else None

    @property
    def tested(self) -> bool:
        """Whether it came to its end and read the test examples, by which nothing was chosen."""
        return bool(self.result and self.result.tested)

    @property
    def num_validation(self) -> int:
        """Validation examples, which choose its best round; 0 where the test examples do."""
        return self.result.used.validation_examples if self.result and self.result.used else 0

    @property
    def best(self) -> Best | None:
        """The best round, and the metrics of its model on test examples, where it had them; None without one.

        Of a run that is under way, was cut or had no validation examples, they are those that chose it.
        """
        if self.result and self.result.tested and self.result.best:
            return Best(self.result.best_round or 0, _measured(self.result.tested.best))
        return self.chosen

    @property
    def chosen(self) -> Best | None:
        """The best round, and the metrics by which it was chosen; None without one."""
        if self.result and self.result.best and self.result.best_round is not None:
            return Best(self.result.best_round, _measured(self.result.best))
        found = [Best(line.server_round, _measured(line.central)) for line in self.rounds]
        found = [each for each in found if self.metric in each.metrics]
        if not found or self.maximize is None:
            return None
        sign = 1 if self.maximize else -1
        return max(found, key=lambda each: sign * each.metrics[self.metric])

    @property
    def ended_with_metrics(self) -> bool:
        """Whether `final` is about the last model of a run with a good end, not what was measured last."""
        return bool(self.result and self.result.final and self.result.ended_well)

    @property
    def final(self) -> Mapping[str, float]:
        """Metrics of the last model on test examples; of a run that is not `tested`, the last measured."""
        if self.result and self.result.tested:
            return _measured(self.result.tested.final)
        return self.compared

    @property
    def compared(self) -> Mapping[str, float]:
        """Metrics of the last model by which runs are compared with one another: those that chose rounds.

        They are on validation examples, or where a run has none, on test examples.
        """
        if self.result and self.result.final:
            return _measured(self.result.final)
        return next((_measured(line.central) for line in reversed(self.rounds) if line.central), {})

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run; without a result, those of its rounds."""
        ended = self.result if self.status != UNFINISHED else None  # else they are those of its beginning
        return (ended and ended.seconds) or sum(line.total_seconds for line in self.rounds)

    @property
    def simulates_time(self) -> bool:
        """Whether it simulates the time that clients take."""
        return any(line.simulated_seconds is not None for line in self.rounds)

    @property
    def simulated_seconds(self) -> float | None:
        """Simulated seconds of all rounds; None where time is not simulated."""
        found = (line.simulated_seconds for line in reversed(self.rounds))
        return next((each for each in found if each is not None), None)

    @property
    def traffic(self) -> Traffic:
        """Bytes over all rounds; what clients moved is null where some round does not say it."""
        moved = [line.bytes for line in self.rounds]
        down = [each.clients_down for each in moved if each.clients_down is not None]
        up = [each.clients_up for each in moved if each.clients_up is not None]
        silent = [each for each in moved if each.clients_down is None and each.down + each.up]
        return Traffic(
            down=sum(each.down for each in moved),
            up=sum(each.up for each in moved),
            clients_down=None if silent or not down else sum(down),
            clients_up=None if silent or not up else sum(up),
            left=dict(sum((Counter(each.left) for each in moved), Counter())),
        )

    def label(self, client: int) -> str:
        """Return how people call a client: by the data's own name of it, or else by its number."""
        names = self.partition.names if self.partition else ()
        return names[client] if client < len(names) else str(client)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every client failure, in the order of rounds."""
        return tuple(
            Failure(line.server_round, failure.client, failure.error)
            for line in self.rounds
            for failure in line.failures
        )


def _measured(metrics: Metrics) -> dict[str, float]:
    """Return what there is a finite number of."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


@cache
def _declared_metric(task: str) -> tuple[str, bool] | None:
    """Return the metric of a task and whether more of it is better; None for a task that is not installed.

    A class outside of all packages, "module:Class", is not imported for what a folder says.
    """
    from models.registry import ENTRY_POINTS, TASKS, task_classes  # imports all families: a second or two

    try:
        offer = offers(TASKS, ENTRY_POINTS).get(task)
        classes = task_classes(task, offer.load()) if offer else ()
    except Exception:  # of a plugin's code: a run is read all the same
        return None
    declared = {(cls.metric, cls.maximize) for cls in classes if hasattr(cls, "metric")}
    return declared.pop() if len(declared) == 1 else None
