"""FedAdam, FedYogi and FedAdagrad (Reddi et al. 2021, arXiv:2003.00295, algorithm 2).

Flower's start the second moment v at 0, where the paper starts it at tau^2, and Flower's FedAdam corrects the
bias of the moments as Adam does, but counts the first round as Adam's second step: with betas of 0.9 and 0.99
it steps by 0.74 eta there, and the paper by eta. `published = true` is the paper's algorithm to the letter.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.fedopt import FedOpt
from numpy.typing import NDArray

from strategies.declaration import Declaration
from strategies.wire.arrays import to_record

Floats = NDArray[np.float64]


class Published(FedOpt):
    """Flower's server optimizer, or with `published` the paper's."""

    def __init__(self, published: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.published = published

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return x + eta * m / (sqrt(v) + tau)."""
        if not self.published:
            return super().aggregate_train(server_round, replies)
        mean, metrics = FedAvg.aggregate_train(self, server_round, replies)
        if mean is None or self.current_arrays is None:
            return None, metrics
        update, first, _ = self._compute_deltat_and_mt(mean)
        before = self.v_t or {name: np.full_like(each, self.tau**2) for name, each in update.items()}
        self.v_t = {name: self.second_moment(v, np.square(update[name])) for name, v in before.items()}
        new = {
            name: x + self.eta * first[name] / (np.sqrt(self.v_t[name]) + self.tau)
            for name, x in self.current_arrays.items()
        }
        return to_record(new), metrics

    @abstractmethod
    def second_moment(self, v: Floats, square: Floats) -> Floats:
        """Return v after an update of this square."""


class FedAdam(Published, flower.FedAdam):
    """v is an exponential mean of squared updates."""

    declaration = Declaration(weighted_mean=True, asynchronous=True)

    def second_moment(self, v: Floats, square: Floats) -> Floats:
        """Return beta_2 * v + (1 - beta_2) * square."""
        return np.asarray(self.beta_2 * v + (1 - self.beta_2) * square)


class FedYogi(Published, flower.FedYogi):
    """v moves towards squared updates by a share of them, not of their difference."""

    declaration = Declaration(weighted_mean=True, asynchronous=True)

    def second_moment(self, v: Floats, square: Floats) -> Floats:
        """Return v - (1 - beta_2) * square * sign(v - square)."""
        return np.asarray(v - (1 - self.beta_2) * square * np.sign(v - square))


class FedAdagrad(Published, flower.FedAdagrad):
    """v is the sum of squared updates."""

    declaration = Declaration(weighted_mean=True, asynchronous=True)

    def second_moment(self, v: Floats, square: Floats) -> Floats:
        """Return v + square."""
        return np.asarray(v + square)
