"""q-FedAvg (Li et al. 2020, arXiv:1905.10497, algorithm 2): Flower's, by the losses at the received weights.

Flower's would take the mean loss of the training itself, which falls with every step, and so says another
thing of a client that takes many.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.exception import AggregationError
from flwr.serverapp.strategy import QFedAvg as FlowerQFedAvg
from flwr.serverapp.strategy.qfedavg import get_train_loss
from torch.optim import Optimizer

from strategies.declaration import Declaration
from strategies.rule import RECEIVED


class QFedAvg(FlowerQFedAvg):
    """Flower's q-FedAvg; `train_loss_key` is the task's objective, "loss" unless given.

    `client_learning_rate`, the reciprocal of the paper's L, is the run's learning rate; it need not be given.
    """

    def __init__(
        self, client_learning_rate: float | None = None, train_loss_key: str = "loss", **options: Any
    ) -> None:
        if client_learning_rate is not None and client_learning_rate <= 0:
            raise ValueError(f"client_learning_rate must be > 0, got {client_learning_rate}")
        super().__init__(math.nan, train_loss_key=RECEIVED + train_loss_key, **options)
        if not 0 <= self.q < math.inf:
            raise ValueError(f"q must be >= 0 and finite, got {self.q}")
        self.client_learning_rate = client_learning_rate  # type: ignore[assignment]

    @property
    def declaration(self) -> Declaration:
        """Ask for the losses, one of which it computes with, and for the learning rate."""
        any_loss = (self.train_loss_key, -math.inf, math.inf)
        return Declaration(received_losses=True, metric_ranges=(any_loss,), check_optimizer=self._tie)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Weigh the updates by the losses; raise AggregationError for a negative one, which has no power."""
        replies = list(replies)
        if self.q > 0:  # else no loss counts
            self._check_losses(replies)
        return super().aggregate_train(server_round, replies)

    def _check_losses(self, replies: Sequence[Message]) -> None:
        for reply in replies:
            if reply.has_content() and (loss := get_train_loss(reply, self.train_loss_key)) < 0:
                raise AggregationError(
                    f"QFedAvg takes powers of losses, which must be >= 0 (Li et al. 2020), and the "
                    f"{self.train_loss_key.removeprefix(RECEIVED)} of client {reply.metadata.src_node_id} is "
                    f"{loss:g}: take another strategy, or a loss that is never negative"
                )

    def _tie(self, optimizer: Optimizer) -> None:
        """Take over the learning rate; raise ValueError where another was given, or found before."""
        for group in optimizer.param_groups:
            rate = float(group.get("initial_lr", group["lr"]))  # before a warm-up has made it small
            if self.client_learning_rate is None:
                self.client_learning_rate = rate
            elif not math.isclose(rate, self.client_learning_rate):
                raise ValueError(
                    f"QFedAvg holds for one learning rate, its client_learning_rate, and it is "
                    f"{self.client_learning_rate:g} where clients train with {rate:g}: leave "
                    "client_learning_rate out, or set learning-rate to it"
                )
