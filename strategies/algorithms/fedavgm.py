"""FedAvg with server momentum (Hsu et al. 2019, arXiv:1909.06335): Flower's, once its momentum is said."""

from typing import Any

from flwr.serverapp.strategy import FedAvgM as FlowerFedAvgM

from strategies.declaration import Declaration


class FedAvgM(FlowerFedAvgM):
    """Flower's FedAvgM; `server_momentum` must be given, as without momentum it is FedAvg."""

    declaration = Declaration(weighted_mean=True, asynchronous=True)

    def __init__(self, server_momentum: float, **options: Any) -> None:
        super().__init__(server_momentum=server_momentum, **options)
