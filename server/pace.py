"""When clients begin and when their updates arrive: round by round, or as each of them is done."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from models.core.errors import UserError
from server.cohort_result import CohortResult, mean_reply
from server.errors import RunFailedError
from server.run_schema import explain
from server.simulated_time import Clock, Schedule, Turn
from server.update_buffer import UpdateBuffer
from strategies.rule import Arrays
from strategies.wire.exact_sum import ExactSum
from strategies.wire.reply_metrics import (
    NUM_EXAMPLES,
    add_update,
    drop_partial_metrics,
    metrics_of,
    weight_of,
)
from strategies.wire.request import RoundInfo

CLOCK = TypeAdapter(Clock)
TIME, FILES = "clock", "files"
"""Keys of what a checkpoint keeps."""


class Pace:
    """Rounds that end when all of their clients have answered; time is not simulated."""

    def begin(self, server_round: int, connected: Callable[[], Sequence[int]]) -> Sequence[int] | None:
        """Return which of the connected clients a strategy is shown, to sample from; None is all of them."""
        return None

    def asks(self, client: int) -> bool:
        """Whether what the strategy asks of a client is sent."""
        return True

    def check(self, strategy: str, asked: Sequence[int]) -> None:
        """Raise UserError where a strategy does not ask those that it has to."""

    def info(self, info: RoundInfo) -> RoundInfo:
        """Return what the clients are told of the round."""
        return info

    def end(self, server_round: int, cohort: CohortResult, weights: Arrays) -> CohortResult:
        """Return what has arrived in a round that began with these weights."""
        return cohort

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
            raise ValueError("it is of a run that simulates time")


class TimedRounds(Pace):
    """Such rounds, of which the simulation knows how long they take: as long as the slowest client."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def begin(self, server_round: int, connected: Callable[[], Sequence[int]]) -> Sequence[int] | None:
        """Return the clients that are there, once there are enough."""
        return self.schedule.present(connected()) if self.schedule.profiles.spans_of else None

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
        try:
            clock = CLOCK.validate_json(json.dumps(given.get(TIME)), strict=True)
        except ValidationError as error:
            raise ValueError(f"its clock is broken: {explain(error)}") from error
        if not (0 <= clock.now < math.inf and all(each.end < math.inf for each in clock.in_flight)):
            raise ValueError("its clock is broken: it is not finite")
        self.schedule.clock = clock


class AsynchronousRounds(TimedRounds):
    """Rounds that end when a number of updates have arrived, whichever rounds these began in (FedBuff)."""

    def __init__(
        self,
        schedule: Schedule,
        buffer_size: int,
        exponent: float,
        weighted_by: str = "",
        weight_types: Mapping[str, np.dtype[Any]] | None = None,
    ) -> None:
        """Take `weighted_by` of a strategy that needs the weighted mean alone, and else leave it out.

        With `weight_types` that mean is to be the new weights.
        """
        super().__init__(schedule)
        self.buffer_size, self.weighted_by, self.weight_types = buffer_size, weighted_by, weight_types
        self.buffer = UpdateBuffer(exponent)
        self.turn = Turn(0, (), ())
        self.staleness: float | None = None

    def begin(self, server_round: int, connected: Callable[[], Sequence[int]]) -> Sequence[int]:
        """Return the clients that begin in this round.

        Where none does, it is one that is not asked: a strategy may note the weights that it is given.
        """
        clients = connected()
        self.turn = self.schedule.asynchronous(server_round, clients, self.buffer_size)
        return sorted(self.turn.begun) or clients[:1]

    def asks(self, client: int) -> bool:
        """Whether a client begins in this round."""
        return client in self.turn.begun

    def check(self, strategy: str, asked: Sequence[int]) -> None:
        """Raise UserError where a strategy leaves out clients that begin: their places would stay taken."""
        if left := sorted(set(self.turn.begun) - set(asked)):
            raise UserError(
                f"strategy {strategy} does not ask clients {left}, which it was shown: in asynchronous "
                "rounds (buffer-size) it must ask all of them, as they were drawn already"
            )

    def info(self, info: RoundInfo) -> RoundInfo:
        """Have every client reply for itself: they arrive one by one."""
        return replace(info, weighted_by="")

    def end(self, server_round: int, cohort: CohortResult, weights: Arrays) -> CohortResult:
        """Return the updates that have arrived, as if they had begun in this round."""
        arrived = self.turn.arrived
        # First those of earlier rounds: such a client may have begun, and be done, in this round once more.
        stale = [each.client for each in arrived if each.server_round < server_round]
        found = self.buffer.take(stale, server_round, weights)
        self.buffer.put(server_round, cohort.replies, weights)
        fresh = [each.client for each in arrived if each.server_round == server_round]
        found += self.buffer.take(fresh, server_round, weights)
        self.buffer.own()
        self.schedule.forget({each.client for each in cohort.failures}, server_round)
        found.sort(key=lambda each: each[0])
        clients, contents = [client for client, _ in found], [content for _, content in found]
        answered = set(clients)
        ages = [server_round - each.server_round for each in arrived if each.client in answered]
        self.staleness = sum(ages) / len(ages) if ages else None
        partial = drop_partial_metrics(contents, NUM_EXAMPLES)
        replies = [Message(content, reply_to=_asked(client)) for client, content in found]
        mean = None
        if found and self.weighted_by:
            total = ExactSum()
            for content in contents:
                add_update(total, content, self.weighted_by)
            if not total.weight:
                raise RunFailedError(
                    f"the updates that arrived in round {server_round} have no examples "
                    f"({self.weighted_by} is 0)"
                )
            mean = None if self.weight_types is None else total.mean(self.weight_types)
            metrics = [metrics_of(content) for content in contents]
            arrays = total.mean() if mean is None else {}
            replies = [mean_reply(metrics, self.weighted_by, arrays, _asked(clients[0]))]
        return replace(
            cohort,
            replies=replies,
            mean=mean,
            clients=clients,
            num_examples=int(sum(weight_of(content, NUM_EXAMPLES) for content in contents)),
            partial_metrics={**cohort.partial_metrics, **partial},
        )

    def metrics(self) -> dict[str, float]:
        """Return how many models were made since the updates began, on average."""
        return {} if self.staleness is None else {"staleness": self.staleness}

    def memory(self) -> tuple[Any, dict[str, Tensor]]:
        """Return the clock, and the updates that have not arrived."""
        return super().memory()[0], self.buffer.tensors()

    def restore(self, memory: Any, tensors: Mapping[str, Tensor]) -> None:
        """Take both back."""
        super().restore(memory, tensors)
        self.buffer.restore(tensors)
        training = {each.client for each in self.schedule.clock.in_flight}
        if stray := self.buffer.updates.keys() - training:
            raise ValueError(f"it holds updates of clients {sorted(stray)}, which do not train")


def _asked(client: int) -> Message:
    """Return a question to a client, of which nobody need know more than whom it has asked."""
    return Message(RecordDict(), client, MessageType.TRAIN)
