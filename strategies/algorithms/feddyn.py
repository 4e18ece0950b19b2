"""FedDyn (Acar et al. 2021, arXiv:2111.04263, algorithm 1): a regularizer that follows each client.

Every client's loss is tilted and bent so that, once all clients agree, they agree on a stationary point of
the mean loss, however many local steps they take. `alpha` is the weight of that regularizer.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from torch import Tensor

from strategies.algorithms.fixed_weights import FixedWeights
from strategies.declaration import Declaration
from strategies.rule import CLIENT_COUNT, WEIGHT, AuxTensors, LocalRule, ParameterResult, RuleResult
from strategies.wire.arrays import to_arrays, to_record
from strategies.wire.train_config import number

SLOPE = "slope"
ALPHA = "feddyn-alpha"
"""Where clients find alpha among what the strategy says."""


class DynamicRegularizer(LocalRule):
    """Descends L(w) - <h_k, w> + alpha / 2 * ||w - w_server||^2."""

    kept = (SLOPE,)

    def __init__(self, config: Mapping[str, object]) -> None:
        self.pull = number(config, ALPHA)

    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        """Return g - h_k + alpha * (w - w_server)."""
        return gradient - aux.kept[SLOPE] + self.pull * (weight - aux.anchor)

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        """Set h_k to h_k - alpha * (w - w_server), the loss's gradient where the client has come to rest."""
        for each in results.values():
            kept = each.aux.kept
            kept[SLOPE] = kept[SLOPE] - self.pull * (each.weight - each.aux.anchor)
        return RuleResult(metrics={CLIENT_COUNT: 1.0})

    def settle(self, kept: dict[str, Tensor], lost: Mapping[str, Tensor]) -> None:
        """Move h_k as far as the server will read, or its h would no longer be the mean of the h_k."""
        kept[SLOPE] = kept[SLOPE] - self.pull * lost[WEIGHT]


class FedDyn(FixedWeights):
    """FedAvg with dynamic regularization.

    It minimizes the mean of the clients' losses, as in the paper; with `weighted_by_key = 'num-examples'` the
    mean over all examples.
    """

    def __init__(self, alpha: float = 0.1, **options: Any) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha must be > 0, got {alpha}")
        super().__init__(**options)
        self.alpha = alpha
        self.slope: dict[str, np.ndarray] = {}
        """h, by weight: the mean of the clients' h_k; empty before the first round."""

    @property
    def declaration(self) -> Declaration:
        """Ask for every reply where clients do not count alike."""
        return Declaration(
            weighted_mean=self.alike,
            local_rules=("strategies.algorithms.feddyn:DynamicRegularizer",),
            metric_ranges=self._metric_ranges,
            over_all_clients=True,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send alpha beside the weights."""
        self._weights = to_arrays(arrays)
        self.slope = self.slope or {name: np.zeros_like(x) for name, x in self._weights.items()}
        config[ALPHA] = self.alpha
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Set h to h - alpha * share * (mean - w), and return mean - h / alpha."""
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        average = to_arrays(mean)
        moved = {name: -self.alpha * (each - self._weights[name]) for name, each in average.items()}
        self.slope = self.add(self.slope, moved)
        return to_record({name: x - self.slope[name] / self.alpha for name, x in average.items()}), metrics
