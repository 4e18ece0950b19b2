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

from strategies.algorithms.plain_sgd import check_sgd
from strategies.declaration import Declaration
from strategies.rule import LocalRule, ParameterResult, RuleResult, split_aux
from strategies.wire.records import to_arrays, to_record

DIRECTION, NUM_STEPS = "direction", "effective-steps"


class Normalized(LocalRule):
    """Replies a client's mean direction, and the steps that it stands for."""

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        """Return (x - y_i) / ||a_i||_1 and ||a_i||_1; step sizes are part of the direction."""
        steps = {effective_steps(each.num_steps, each.momentum) for each in results.values()}
        if len(steps) > 1:
            raise ValueError(f"FedNova needs objectives that step alike, got {sorted(steps)} effective steps")
        (norm,) = steps
        direction = {name: (each.aux.anchor - each.weight) / norm for name, each in results.items()}
        return RuleResult({DIRECTION: direction}, {NUM_STEPS: norm})


def effective_steps(num_steps: int, momentum: float) -> float:
    """Return ||a_i||_1: how often the gradients of `num_steps` steps are counted (section 4.1, momentum)."""
    rho = momentum
    return (num_steps - rho * (1 - rho**num_steps) / (1 - rho)) / (1 - rho)


class FedNova(FedAvg):
    """FedAvg over normalized updates.

    Gradients are counted rightly for SGD with or without momentum; `any_optimizer` allows others all the
    same, and counts their steps.
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
        steps = float(metrics[NUM_STEPS])  # type: ignore[arg-type]
        # What no optimizer trains, such as running statistics, has no direction: its mean is taken.
        new = {name: self._weights[name] - steps * d for name, d in aux[DIRECTION].items()}
        return to_record({**weights, **new}), metrics
