"""Krum and Multi-Krum (Blanchard et al. 2017, arXiv:1703.02757): the updates that lie closest to most others.

Distances are those of the clients' updates, in float64: late in training updates are a hundred thousandth of
the weights, and squared distances of float32 weights are then nothing but rounding.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from strategies.declaration import Declaration
from strategies.rule import Arrays
from strategies.wire.arrays import to_arrays, to_record

Floats = NDArray[np.float64]
logger = logging.getLogger("polyfed")


def squared_distances(updates: Sequence[Arrays]) -> Floats:
    """Return the squared L2 distances of all pairs of updates, (n, n), with infinity on the diagonal.

    By products of pairs, so that an enormous update spoils no distance but its own.
    """
    n = len(updates)
    total = np.zeros((n, n))
    with np.errstate(over="ignore", invalid="ignore"):  # of updates that nobody is near to
        for name in updates[0]:
            flat = np.stack([update[name].reshape(-1) for update in updates])  # (n, size)
            total += flat @ flat.T
        norms = np.diagonal(total)
        distances: Floats = np.maximum(norms[:, None] + norms[None, :] - 2 * total, 0.0)
    distances[~np.isfinite(distances)] = np.inf
    np.fill_diagonal(distances, np.inf)
    return distances


def krum_scores(distances: Floats, num_malicious: int) -> Floats:
    """Return each update's sum of squared distances to its n - f - 2 closest others, at least to one."""
    n = len(distances)
    closest = min(max(1, n - num_malicious - 2), n - 1)
    scores: Floats = np.sort(distances, axis=1)[:, :closest].sum(axis=1)
    return scores


class Selecting(FedAvg):
    """FedAvg that combines some of the updates, by how they lie among each other; no client's word counts.

    A mean weighted by examples would let an attacker that is selected weigh as much as it claims to.
    `num_malicious_nodes` is the number of attackers that a round must bear.
    """

    least_per_attacker: int
    """n must be at least this times `num_malicious_nodes`, plus 3, for n clients a round."""

    def __init__(self, num_malicious_nodes: int, num_sampled_clients: int, **options: Any) -> None:
        if num_malicious_nodes < 0:
            raise ValueError(f"num_malicious_nodes must be >= 0, got {num_malicious_nodes}")
        self.num_malicious_nodes = num_malicious_nodes
        if num_malicious_nodes and num_sampled_clients < self.least_clients:
            bears = max(0, (num_sampled_clients - 3) // self.least_per_attacker)
            raise ValueError(
                f"num_malicious_nodes must be at most {bears} for the {num_sampled_clients} clients that a "
                f"round asks, got {num_malicious_nodes}, which takes {self.least_clients} clients "
                f"({self.least_per_attacker} for each, and 3)"
            )
        super().__init__(**options)

    @property
    def declaration(self) -> Declaration:
        """Say how many attackers it withstands."""
        return Declaration(withstands=self.num_malicious_nodes)

    @property
    def least_clients(self) -> int:
        """How many must answer for the proof to hold."""
        return self.least_per_attacker * self.num_malicious_nodes + 3

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the weights that updates start from."""
        self._weights = to_arrays(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the weights moved by what `combine` makes of the updates, and the metrics of all."""
        valid, _ = self._check_and_log_replies(list(replies), is_train=True)
        if not valid:
            return None, None
        if self.num_malicious_nodes and len(valid) < self.least_clients:
            logger.warning(
                "Round %d: %d clients answered, and %s bears %d attackers among %d or more only",
                server_round,
                len(valid),
                type(self).__name__,
                self.num_malicious_nodes,
                self.least_clients,
            )
        contents = [reply.content for reply in valid]
        moved = self.combine([self._update(content) for content in contents])
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        return to_record({name: self._weights[name] + each for name, each in moved.items()}), metrics

    @abstractmethod
    def combine(self, updates: Sequence[Arrays]) -> Arrays:
        """Return the update to take."""

    def _update(self, content: RecordDict) -> Arrays:
        (record,) = content.array_records.values()
        return {
            name: np.asarray(np.subtract(array, self._weights[name], dtype=np.float64))
            for name, array in to_arrays(record).items()
        }


class Krum(Selecting):
    """The one update of the lowest score."""

    least_per_attacker = 2

    def combine(self, updates: Sequence[Arrays]) -> Arrays:
        """Return the selected update."""
        return mean_of_best(updates, self.num_malicious_nodes, 1)


class MultiKrum(Selecting):
    """The plain mean of the `num_nodes_to_select` updates of the lowest scores."""

    least_per_attacker = 2

    def __init__(self, num_malicious_nodes: int, num_nodes_to_select: int = 1, **options: Any) -> None:
        if num_nodes_to_select < 1:
            raise ValueError(f"num_nodes_to_select must be >= 1, got {num_nodes_to_select}")
        super().__init__(num_malicious_nodes, **options)
        self.num_nodes_to_select = num_nodes_to_select

    def combine(self, updates: Sequence[Arrays]) -> Arrays:
        """Return the mean of the selected updates."""
        return mean_of_best(updates, self.num_malicious_nodes, self.num_nodes_to_select)


def mean_of_best(updates: Sequence[Arrays], num_malicious: int, count: int) -> Arrays:
    """Return the mean of the `count` updates of the lowest scores."""
    scores = krum_scores(squared_distances(updates), num_malicious)
    best = np.argsort(scores, kind="stable")[:count]
    return {name: sum(updates[index][name] for index in best) / len(best) for name in updates[0]}
