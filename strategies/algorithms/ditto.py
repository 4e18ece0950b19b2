"""Ditto (Li et al. 2021, arXiv:2012.04221, algorithm 1): a personal model a client, near the shared one.

The shared model w is trained as under FedAvg, to the bit. Beside it every client k keeps a model v_k of its
own, which descends F_k(v) + penalty / 2 * ||v - w||^2 (the paper's lambda; w is what the server sent in this
round) over the same examples, and never leaves the client.
"""

import math
from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from strategies.algorithms.fedprox import PROXIMAL_MU
from strategies.declaration import Declaration


class Ditto(FedAvg):
    """FedAvg whose clients keep personal models; `penalty` 0 leaves each client by itself."""

    declaration = Declaration(weighted_mean=True, personal_rules=("strategies.algorithms.fedprox:Proximal",))

    def __init__(self, penalty: float = 1.0, **options: Any) -> None:
        if not 0 <= penalty < math.inf:
            raise ValueError(f"penalty must be >= 0 and finite, got {penalty}")
        super().__init__(**options)
        self.penalty = penalty

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the penalty beside the weights, as what the proximal rule knows."""
        config[PROXIMAL_MU] = self.penalty
        return super().configure_train(server_round, arrays, config, grid)
