"""Averages of what clients keep, which stay averages over all clients whoever takes part in a round.

A server that adds up changes round by round holds the clients' mean only where each client always counts the
same: SCAFFOLD's control variate and FedDyn's slope are such sums, and which mean of the clients' losses the
strategy minimizes depends on these weights alone. Cohorts that are weighted by their own totals would let the
sum drift away from the mean.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from strategies.rule import CLIENT_COUNT, Arrays

WEIGHTS = (CLIENT_COUNT, "num-examples")
"""What every client replies, and what is the same in each round where its data is."""


class FixedWeights(FedAvg):
    """FedAvg in which a client counts in every round as in its first one, out of all `num_clients`.

    All count alike, as in the papers, unless `weighted_by_key` is 'num-examples': then a client's share is
    n_i / n. A client that has not taken part yet counts in n as the others do on average.
    """

    def __init__(self, num_clients: int, **options: Any) -> None:
        super().__init__(**{"weighted_by_key": CLIENT_COUNT, **options})
        if self.weighted_by_key not in WEIGHTS:
            allowed = " or ".join(map(repr, WEIGHTS))
            raise ValueError(f"weighted_by_key must be {allowed}, got {self.weighted_by_key!r}")
        self.num_clients = num_clients
        self.client_weights: dict[int, float] = {}
        """Client -> its weight, for those that have taken part; empty where all count alike."""

    @property
    def alike(self) -> bool:
        """Whether all clients count the same, so that the mean of a round's replies is enough."""
        return bool(self.weighted_by_key == CLIENT_COUNT)

    @property
    def _metric_ranges(self) -> tuple[tuple[str, float, float], ...]:
        """What a client may say of how much it counts, where all count alike."""
        return ((CLIENT_COUNT, 1.0, 1.0),) if self.alike else ()

    @property
    def total(self) -> float:
        """The weight of all clients together."""
        known = self.client_weights.values()
        return sum(known) * (self.num_clients / len(known)) if known else float(self.num_clients)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Count whom the round asks."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self._asked = len(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean by the fixed weights, and see to what `add` needs."""
        replies, before = list(replies), self.total
        answered = [reply for reply in replies if reply.has_content()]
        if self.alike:  # nodes may have sent one mean for all who answered
            weight = float(self._asked - (len(replies) - len(answered)))
        else:
            weight = sum(map(self._fix, answered))
        self._kept, self._share = before / self.total, weight / self.total
        return super().aggregate_train(server_round, replies)

    def add(self, mean: Arrays, change: Arrays) -> dict[str, np.ndarray]:
        """Return the mean over all clients after those of this round have changed by `change` on average."""
        return {
            name: np.asarray(self._kept * held + self._share * np.float64(change[name]), held.dtype)
            for name, held in mean.items()
        }

    def _fix(self, reply: Message) -> float:
        """Return the weight of the client that replies, which is that of its first reply."""
        (metrics,) = reply.content.metric_records.values()
        given = float(metrics[self.weighted_by_key])  # type: ignore[arg-type]
        weight = self.client_weights.setdefault(reply.metadata.src_node_id, given)
        if weight != given:
            metrics[self.weighted_by_key] = weight
        return weight
