"""q-FedAvg (Li et al. 2020, arXiv:1905.10497): Flower's, going by the loss that our clients report."""

from typing import Any

from flwr.serverapp.strategy import QFedAvg as FlowerQFedAvg


class QFedAvg(FlowerQFedAvg):
    """Flower's q-FedAvg; `train_loss_key` is the task's objective, "loss" unless given."""

    def __init__(self, client_learning_rate: float, train_loss_key: str = "loss", **options: Any) -> None:
        super().__init__(client_learning_rate, train_loss_key=train_loss_key, **options)
