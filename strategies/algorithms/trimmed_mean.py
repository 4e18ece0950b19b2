"""The trimmed mean (Yin et al. 2018, arXiv:1803.01498): Flower's, which says whom it cuts off."""

import logging
from typing import Any

from flwr.serverapp.strategy import FedTrimmedAvg as FlowerFedTrimmedAvg

from strategies.declaration import Declaration


class FedTrimmedAvg(FlowerFedTrimmedAvg):
    """Entry by entry the plain mean without the int(beta * n) lowest and highest of n clients' values."""

    def __init__(self, num_sampled_clients: int, beta: float = 0.2, **options: Any) -> None:
        super().__init__(beta=beta, **options)
        self.num_cut = int(beta * num_sampled_clients)
        if not self.num_cut:
            logging.getLogger("polyfed").warning(
                "FedTrimmedAvg with beta = %g cuts off nobody of the %d clients that a round asks, which is "
                "their plain mean: set beta >= 1 / %d",
                beta,
                num_sampled_clients,
                num_sampled_clients,
            )

    @property
    def declaration(self) -> Declaration:
        """Say how many attackers it withstands."""
        return Declaration(withstands=self.num_cut, asynchronous=True)
