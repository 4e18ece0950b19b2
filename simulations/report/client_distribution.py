"""How far clients are apart on their own examples: a mean says nothing of the client that is served worst."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from simulations.runs.record import Run
from strategies.rule import PERSONAL


@dataclass(frozen=True)
class ClientDistribution:
    """What clients found by one metric in one round."""

    server_round: int
    values: tuple[float, ...]
    """From the worst client to the best; what is not finite is worst of all."""
    worst_client: int

    @property
    def mean(self) -> float:
        """The mean in which every client counts the same, however few examples it has."""
        return fmean(self.values)

    def at(self, share: float) -> float:
        """Return the value that this share of the clients, in [0, 1], does not surpass."""
        return float(np.interp(share * (len(self.values) - 1), range(len(self.values)), self.values))


def client_distributions(run: Run) -> dict[str, ClientDistribution]:
    """Return those of the run's metric in the last round in which clients evaluated, personal models' too.

    Empty where no client did, and where nobody says whether more of the metric is better.
    """
    last = next((line for line in reversed(run.rounds) if line.by_client), None)
    if last is None or run.maximize is None:
        return {}
    sign = 1 if run.maximize else -1
    found = {}
    for name in (run.metric, PERSONAL + run.metric):
        if measured := last.client_metrics.get(name):
            worst_first = sorted(
                measured.items(),
                key=lambda pair: sign * pair[1] if math.isfinite(pair[1]) else -math.inf,
            )
            values = tuple(value for _, value in worst_first)
            found[name] = ClientDistribution(last.server_round, values, worst_client=worst_first[0][0])
    return found


def distributions_of(runs: Sequence[Run]) -> dict[str, list[ClientDistribution | None]]:
    """Return metric -> its distribution in each run, for the metrics of which any run has one."""
    found = [client_distributions(run) for run in runs]
    names = dict.fromkeys(name for each in found for name in each)
    return {name: [each.get(name) for each in found] for name in names}
