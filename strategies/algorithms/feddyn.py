"""FedDyn (Acar et al. 2021, arXiv:2111.04263, algorithm 1): a regularizer that follows each client.

Every client's loss is tilted and bent so that, once all clients agree, they agree on a stationary point of
the mean loss, however many local steps they take. `alpha` is the weight of that regularizer.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from strategies.declaration import Declaration
from strategies.rule import CLIENT_COUNT, AuxTensors, LocalRule, ParameterResult, RuleResult
from strategies.wire.records import to_arrays, to_record
from strategies.wire.train_config import number

SLOPE = "slope"
ALPHA = "feddyn-alpha"
"""Where clients find alpha among what the strategy says."""


class DynamicRegularizer(LocalRule):
    """Descends L(w) - <h_k, w> + alpha / 2 * ||w - w_server||^2."""

    kept = (SLOPE,)

    def __init__(self, config: Mapping[str, object]) -> None:
        self.alpha = number(config, ALPHA)

    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        """Return g - h_k + alpha * (w - w_server)."""
        return gradient - aux.kept[SLOPE] + self.alpha * (weight - aux.anchor)

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        """Set h_k to h_k - alpha * (w - w_server), the loss's gradient where the client has come to rest."""
        for each in results.values():
            kept = each.aux.kept
            kept[SLOPE] = kept[SLOPE] - self.alpha * (each.weight - each.aux.anchor)
        return RuleResult(metrics={CLIENT_COUNT: 1.0})


class FedDyn(FedAvg):
    """FedAvg with dynamic regularization, in which every client counts alike, as in the paper.

    Only so is the server's slope the mean of the clients' whoever takes part in a round.
    """

    declaration = Declaration(
        weighted_mean=True, local_rules=("strategies.algorithms.feddyn:DynamicRegularizer",)
    )

    def __init__(self, alpha: float = 0.1, **options: Any) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha must be > 0, got {alpha}")
        super().__init__(**{"weighted_by_key": CLIENT_COUNT, **options})
        self.alpha = alpha
        self.slope: dict[str, np.ndarray] = {}
        """h, by weight; empty before the first round."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send alpha beside the weights."""
        self._weights = to_arrays(arrays)
        self.slope = self.slope or {name: np.zeros_like(x) for name, x in self._weights.items()}
        config[ALPHA] = self.alpha
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self._asked, self._num_clients = len(messages), len(list(grid.get_node_ids()))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Set h to h - alpha * share * (mean - w), and return mean - h / alpha."""
        replies = list(replies)
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        share = (self._asked - sum(reply.has_error() for reply in replies)) / self._num_clients
        new = {}
        for name, average in to_arrays(mean).items():
            moved = self.alpha * share * (average - self._weights[name])
            self.slope[name] = (self.slope[name] - moved).astype(self.slope[name].dtype)
            new[name] = average - self.slope[name] / self.alpha
        return to_record(new), metrics
