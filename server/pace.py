"""When clients begin and when their updates arrive: round by round, or as each of them is done."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from server.cohort import CohortGrid
from server.cohort_result import CohortResult
from server.run_schema import explain
from server.simulated_time import Schedule
from server.turns import Clock
from strategies.rule import Arrays
from strategies.wire.request import RoundInfo

CLOCK = TypeAdapter(Clock)
TIME, FILES = "clock", "files"
"""Keys of what a checkpoint keeps."""


class Pace:
    """Rounds that end when all of their clients have answered; time is not simulated."""

    def begin(self, server_round: int, grid: CohortGrid) -> Sequence[int] | None:
        """Return which clients a strategy is shown, to sample from; None is all that are connected."""
        return None

    def asks(self, client: int) -> bool:
        """Whether what the strategy asks of a client is sent."""
        return True

    def check(self, strategy: str, asked: Sequence[int]) -> None:
        """Raise UserError where a strategy does not ask those that it has to."""

    def info(self, info: RoundInfo) -> RoundInfo:
        """Return what the clients are told of the round."""
        return info

    def exchange(self, grid: CohortGrid) -> Callable[..., CohortResult]:
        """Return what has clients asked, and returns what they answer: it is called as the grid's own is."""
        return grid.exchange

    def end(self, server_round: int, cohort: CohortResult, weights: Arrays) -> CohortResult:
        """Return what has arrived in a round that began with these weights."""
        return cohort

    def evaluates(self, client: int) -> bool:
        """Whether a client that a strategy asks to evaluate is sent it."""
        return True

    @property
    def remarks(self) -> Sequence[str]:
        """What a reader of the run's results should know."""
        return ()

    @property
    def seconds(self) -> float | None:
        """Simulated seconds since the run began; None where time is not simulated."""
        return None

    def metrics(self) -> dict[str, float]:
        """Return what the round's line says of it among the metrics of training."""
        return {}

    def memory(self) -> tuple[Any, dict[str, Tensor]]:
        """Return what a checkpoint keeps: JSON, and tensors."""
        return None, {}

    def restore(self, memory: Any, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `memory` gave; raise ValueError where it is something else."""
        if memory is not None:
            raise ValueError("it is of a run with simulated time or asynchronous rounds")


class TimedRounds(Pace):
    """Such rounds, of which the simulation knows how long they take: as long as the slowest client."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def begin(self, server_round: int, grid: CohortGrid) -> Sequence[int] | None:
        """Return the clients that are there, once there are enough."""
        return self.schedule.present(grid.connected()) if self.schedule.profiles.spans_of else None

    def end(self, server_round: int, cohort: CohortResult, weights: Arrays) -> CohortResult:
        """Let time pass until the slowest has trained; of one that failed nobody knows how long it took."""
        self.schedule.wait_for(cohort.clients)
        return cohort

    @property
    def seconds(self) -> float:
        """Simulated seconds since the run began."""
        return self.schedule.clock.now

    def memory(self) -> tuple[Any, dict[str, Tensor]]:
        """Return the clock, and which files it goes by."""
        return {TIME: asdict(self.schedule.clock), FILES: self.schedule.profiles.files}, {}

    def restore(self, memory: Any, tensors: Mapping[str, Tensor]) -> None:
        """Set the clock; raise ValueError where it is none of this run's."""
        given = memory if isinstance(memory, dict) else {}
        if given.get(FILES) != self.schedule.profiles.files:
            raise ValueError(
                "a file of client-speeds or availability is another than the run began with: put it back"
            )
        clock = clock_of(given)
        if not (0 <= clock.now < math.inf and all(each.end < math.inf for each in clock.in_flight)):
            raise ValueError("its clock is broken: it is not finite")
        self.schedule.clock = clock


def clock_of(memory: Mapping[str, Any]) -> Clock:
    """Return the clock in what a checkpoint keeps; raise ValueError for a broken one."""
    try:
        return CLOCK.validate_json(json.dumps(memory.get(TIME)), strict=True)
    except ValidationError as error:
        raise ValueError(f"its clock is broken: {explain(error)}") from error
