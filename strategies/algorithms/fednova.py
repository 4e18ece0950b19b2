"""FedNova (Wang et al. 2020, arXiv:2007.07481, section 4): count steps, not clients, only once.

A client that takes more local steps pulls further; averaging its update as it is minimizes another loss than
the one that was asked for. FedNova averages the clients' mean directions, and steps as far as their steps go.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from strategies.algorithms.plain_sgd import check_sgd
from strategies.declaration import Declaration
from strategies.rule import LocalRule, ParameterResult, RuleResult, split_aux
from strategies.wire.arrays import to_arrays, to_record

DIRECTION, PATH = "direction", "effective-path"
"""Aux tensors and metric that clients reply. A GAN's, whose halves step apart, have a suffix."""


class Normalized(LocalRule):
    """Replies a client's mean gradient, and how far its steps carry a gradient.

    That is (x - y_i) / ||a_i||_1 and ||a_i||_1, step sizes counted in: a_i says how often each gradient moved
    the weights, by any schedule, momentum (that of rounds before too, where it is kept) and proximal term.
    """

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        """Return the directions and their lengths, for the weights of each set of objectives."""
        alone = len({each.objectives for each in results.values()}) == 1
        aux: dict[str, dict[str, Tensor]] = {}
        metrics = {}
        for name, each in results.items():
            suffix = "" if alone else "-" + "-".join(map(str, each.objectives))
            length = each.gradient_sum or 1.0  # of what nothing trains; it has not moved
            aux.setdefault(DIRECTION + suffix, {})[name] = (each.aux.anchor - each.weight) / length
            metrics[PATH + suffix] = length
        return RuleResult(aux, metrics)


class FedNova(FedAvg):
    """FedAvg over normalized updates.

    The normalization is right for SGD, whatever its learning rates, momentum and local steps; `any_optimizer`
    allows others all the same, and counts their steps by their learning rates.
    """

    def __init__(self, any_optimizer: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.any_optimizer = any_optimizer

    @property
    def declaration(self) -> Declaration:
        """Refuse optimizers whose gradients are counted otherwise, unless any is allowed."""
        return Declaration(
            weighted_mean=True,
            local_rules=("strategies.algorithms.fednova:Normalized",),
            replies_aux=True,
            check_optimizer=None if self.any_optimizer else partial(check_sgd, "FedNova", momentum=True),
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the weights that the directions start from."""
        self._weights = to_arrays(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return x - tau * sum p_i d_i, with tau = sum p_i ||a_i||_1 (equation 8)."""
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None or metrics is None:
            return None, metrics
        weights, aux = split_aux(to_arrays(mean))
        for kind, directions in aux.items():
            length = float(metrics[kind.replace(DIRECTION, PATH)])  # type: ignore[arg-type]
            weights |= {name: self._weights[name] - length * each for name, each in directions.items()}
        return to_record(weights), metrics
