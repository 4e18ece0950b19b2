"""Rounds that end when a number of updates have arrived, whichever rounds these began in (FedBuff)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from torch import Tensor

from models.core.errors import UserError
from server.cohort import CohortGrid
from server.cohort_result import CohortResult, mean_reply
from server.errors import RunFailedError
from server.pace import Pace, TimedRounds
from server.simulated_time import Schedule
from server.turns import InFlight, Turn
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

Found = tuple[InFlight, RecordDict]
"""A client that has arrived, and what the strategy is to see of its update."""


class AsynchronousRounds(Pace):
    """What such rounds have in common, whatever time they go by: the buffer, and what is made of it."""

    def __init__(
        self,
        buffer_size: int,
        exponent: float,
        weighted_by: str = "",
        weight_types: Mapping[str, np.dtype[Any]] | None = None,
    ) -> None:
        """Take `weighted_by` of a strategy that needs the weighted mean alone, and else leave it out.

        With `weight_types` that mean is to be the new weights.
        """
        self.buffer_size, self.weighted_by, self.weight_types = buffer_size, weighted_by, weight_types
        self.buffer = UpdateBuffer(exponent)
        self.to_ask: Collection[int] = ()
        """Clients that the strategy must ask in this round."""
        self.staleness: float | None = None

    def check(self, strategy: str, asked: Sequence[int]) -> None:
        """Raise UserError where a strategy leaves out clients that begin: their places would stay taken."""
        if left := sorted(set(self.to_ask) - set(asked)):
            raise UserError(
                f"strategy {strategy} does not ask clients {left}, which it was shown: in asynchronous "
                "rounds (buffer-size) it must ask all of them, as they were drawn already"
            )

    def info(self, info: RoundInfo) -> RoundInfo:
        """Have every client reply for itself: they arrive one by one."""
        return replace(info, weighted_by="")

    def metrics(self) -> dict[str, float]:
        """Return how many models were made since the updates began, on average."""
        return {} if self.staleness is None else {"staleness": self.staleness}

    def combined(self, server_round: int, found: Sequence[Found], cohort: CohortResult) -> CohortResult:
        """Return the updates that have arrived, as if they had begun in this round."""
        found = sorted(found, key=lambda each: each[0].client)
        clients, contents = [each.client for each, _ in found], [content for _, content in found]
        ages = [server_round - each.server_round for each, _ in found]
        self.staleness = sum(ages) / len(ages) if ages else None
        partial = drop_partial_metrics(contents, NUM_EXAMPLES)
        replies = [
            Message(content, reply_to=_asked(client))
            for client, content in zip(clients, contents, strict=True)
        ]
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


class SimulatedArrivals(AsynchronousRounds):
    """Asynchronous rounds whose arrivals follow from simulated time, and are known before anybody trains."""

    def __init__(self, schedule: Schedule, *given: Any) -> None:
        """Take the schedule, and what `AsynchronousRounds` takes."""
        super().__init__(*given)
        self.schedule, self.timed = schedule, TimedRounds(schedule)
        self.turn = Turn(0, (), ())

    def begin(self, server_round: int, grid: CohortGrid) -> Sequence[int]:
        """Return the clients that begin in this round.

        Where none does, it is one that is not asked: a strategy may note the weights that it is given.
        """
        clients = grid.connected()
        self.turn = self.schedule.asynchronous(server_round, clients, self.buffer_size)
        self.to_ask = self.turn.begun
        return sorted(self.turn.begun) or clients[:1]

    def asks(self, client: int) -> bool:
        """Whether a client begins in this round."""
        return client in self.turn.begun

    def end(self, server_round: int, cohort: CohortResult, weights: Arrays) -> CohortResult:
        """Return the updates that have arrived, of those that were computed in this round and before."""
        # First those of earlier rounds: such a client may have begun, and be done, in this round once more.
        stale = [each for each in self.turn.arrived if each.server_round < server_round]
        found = self._take(stale, server_round, weights)
        self.buffer.put(server_round, cohort.replies, weights)
        fresh = [each for each in self.turn.arrived if each.server_round == server_round]
        found += self._take(fresh, server_round, weights)
        self.buffer.own()
        self.schedule.forget({each.client for each in cohort.failures}, server_round)
        return self.combined(server_round, found, cohort)

    def _take(self, arrived: Sequence[InFlight], server_round: int, weights: Arrays) -> list[Found]:
        by_client = {each.client: each for each in arrived}
        return [
            (by_client[client], content)
            for client, content in self.buffer.take(by_client, server_round, weights)
        ]

    @property
    def seconds(self) -> float:
        """Simulated seconds since the run began."""
        return self.timed.seconds

    def memory(self) -> tuple[Any, dict[str, Tensor]]:
        """Return the clock, and the updates that have not arrived."""
        return self.timed.memory()[0], self.buffer.tensors()

    def restore(self, memory: Any, tensors: Mapping[str, Tensor]) -> None:
        """Take both back."""
        self.timed.restore(memory, tensors)
        self.buffer.restore(tensors)
        training = {each.client for each in self.schedule.clock.in_flight}
        if stray := self.buffer.updates.keys() - training:
            raise ValueError(f"it holds updates of clients {sorted(stray)}, which do not train")


def _asked(client: int) -> Message:
    """Return a question to a client, of which nobody need know more than whom it has asked."""
    return Message(RecordDict(), client, MessageType.TRAIN)
