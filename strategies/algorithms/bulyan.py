"""Bulyan (El Mhamdi et al. 2018, arXiv:1802.07927): Krum again and again, then a mean about the median.

A single selection lets an attacker move one coordinate far; here every coordinate is taken from values that
lie among those of honest clients.
"""

from collections.abc import Sequence

import numpy as np
from flwr.serverapp.exception import AggregationError

from strategies.algorithms.krum import Floats, Selecting, krum_scores, squared_distances
from strategies.rule import Arrays


class Bulyan(Selecting):
    """Of the n - 2 f updates that Krum selects, entry by entry the mean of the n - 4 f about the median.

    Without attackers, `num_malicious_nodes = 0`, it is the plain mean of all updates.
    """

    least_per_attacker = 4

    def combine(self, updates: Sequence[Arrays]) -> Arrays:
        """Return the mean about the median of the selected updates.

        Raises AggregationError where nothing would be left of them.
        """
        theta = len(updates) - 2 * self.num_malicious_nodes
        beta = theta - 2 * self.num_malicious_nodes
        if beta < 1:
            raise AggregationError(
                f"{len(updates)} clients answered, and Bulyan with num_malicious_nodes = "
                f"{self.num_malicious_nodes} needs {4 * self.num_malicious_nodes + 1} at least"
            )
        chosen = select(squared_distances(updates), self.num_malicious_nodes, theta)
        selected = [updates[index] for index in chosen]
        return {
            name: about_the_median(np.stack([update[name] for update in selected]), beta)
            for name in updates[0]
        }


def select(distances: Floats, num_malicious: int, count: int) -> list[int]:
    """Return whom Krum selects, one after another, each time among those that are left."""
    left = list(range(len(distances)))
    selected: list[int] = []
    while len(selected) < count and len(left) > 1:
        scores = krum_scores(distances[np.ix_(left, left)], num_malicious)
        selected.append(left.pop(int(np.argmin(scores))))
    return selected + left[: count - len(selected)]


def about_the_median(values: Floats, beta: int) -> Floats:
    """Return the mean of the `beta` values closest to the median, along the first axis: (m, ...) -> (...)."""
    away = np.abs(values - np.median(values, axis=0))
    closest = np.argsort(away, axis=0, kind="stable")[:beta]
    mean: Floats = np.take_along_axis(values, closest, axis=0).mean(axis=0)
    return mean
