"""FedProx (Li et al. 2020, arXiv:1812.06127, eq. 2): stay close to the server's weights while training.

The server half is Flower's: it averages like FedAvg and sends `proximal-mu` to every client.
"""

import math
from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedProx as FlowerFedProx
from torch import Tensor

from strategies.declaration import Declaration
from strategies.rule import AuxTensors, LocalRule
from strategies.wire.train_config import number

PROXIMAL_MU = "proximal-mu"
"""Where clients find mu among what the strategy says; Flower's FedProx calls it so."""


class Proximal(LocalRule):
    """Adds the gradient of mu / 2 * ||w - w_server||^2."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self.pull = number(config, PROXIMAL_MU)

    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        """Return g + mu * (w - w_server)."""
        return gradient + self.pull * (weight - aux.anchor)


class FedProx(FlowerFedProx):
    """Flower's FedProx, with the client half that it leaves to the application.

    `proximal_mu` must be given: 0 is FedAvg.
    """

    declaration = Declaration(
        weighted_mean=True, asynchronous=True, local_rules=("strategies.algorithms.fedprox:Proximal",)
    )

    def __init__(self, proximal_mu: float, **options: Any) -> None:
        if not 0 <= proximal_mu < math.inf:
            raise ValueError(f"proximal_mu must be >= 0 and finite, got {proximal_mu}")
        super().__init__(proximal_mu=proximal_mu, **options)
