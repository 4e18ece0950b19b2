"""SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1, option II): correct the drift of clients.

Every client keeps a control variate, an estimate of its own gradient, and the server one of the mean
gradient; their difference is added to each step, so that clients with different data stop pulling apart.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from torch import Tensor

from strategies.algorithms.fixed_weights import FixedWeights
from strategies.algorithms.plain_sgd import check_sgd
from strategies.declaration import Declaration
from strategies.rule import (
    CLIENT_COUNT,
    AuxTensors,
    LocalRule,
    ParameterResult,
    RuleResult,
    aux_arrays,
    split_aux,
)
from strategies.wire.arrays import to_arrays, to_record

CONTROL, CHANGE = "control", "control-change"


class ControlVariates(LocalRule):
    """Steps along g - c_i + c."""

    sent = (CONTROL,)
    kept = (CONTROL,)

    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        """Return g - c_i + c."""
        return gradient - aux.kept[CONTROL] + aux.sent[CONTROL]

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        """Set c_i to c_i - c + (x - y_i) / (K eta), and reply how far it moved."""
        change = {}
        for name, each in results.items():
            aux = each.aux
            if each.path:
                change[name] = (aux.anchor - each.weight) / each.path - aux.sent[CONTROL]
            else:  # no objective trains it, on any client
                change[name] = torch.zeros_like(each.weight)
            aux.kept[CONTROL] = aux.kept[CONTROL] + change[name]
        return RuleResult({CHANGE: change}, {CLIENT_COUNT: 1.0})

    def settle(self, kept: dict[str, Tensor], lost: Mapping[str, Tensor]) -> None:
        """Move c_i as far as the server will read, or c would no longer be the mean of the c_i."""
        kept[CONTROL] = kept[CONTROL] + lost[CHANGE]


class Scaffold(FixedWeights):
    """FedAvg with control variates.

    It minimizes the mean of the clients' losses, as in the paper; with `weighted_by_key = 'num-examples'` the
    mean over all examples. `server_learning_rate` is the paper's global step size. The control variates take
    a client's mean step for its gradient, which holds for plain SGD alone; `any_optimizer` allows others all
    the same.
    """

    def __init__(
        self, server_learning_rate: float = 1.0, any_optimizer: bool = False, **options: Any
    ) -> None:
        if server_learning_rate <= 0:
            raise ValueError(f"server_learning_rate must be > 0, got {server_learning_rate}")
        super().__init__(**options)
        self.server_learning_rate, self.any_optimizer = server_learning_rate, any_optimizer
        self.control: dict[str, np.ndarray] = {}
        """c, by weight; empty before the first round."""

    @property
    def declaration(self) -> Declaration:
        """Refuse optimizers under which a mean step is no gradient, unless any is allowed."""
        return Declaration(
            weighted_mean=self.alike,
            local_rules=("strategies.algorithms.scaffold:ControlVariates",),
            replies_aux=True,
            metric_ranges=self._metric_ranges,
            over_all_clients=True,
            check_optimizer=None if self.any_optimizer else partial(check_sgd, "Scaffold", momentum=False),
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send c beside the weights."""
        self._weights = to_arrays(arrays)
        self.control = self.control or {name: np.zeros_like(x) for name, x in self._weights.items()}
        sent = to_record({**self._weights, **aux_arrays(CONTROL, self.control)})
        return super().configure_train(server_round, sent, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Step the weights towards the clients' mean, and c by the share of the clients that took part."""
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        weights, aux = split_aux(to_arrays(mean))
        self.control = self.add(self.control, aux[CHANGE])
        step = self.server_learning_rate
        return to_record({name: x + step * (weights[name] - x) for name, x in self._weights.items()}), metrics
