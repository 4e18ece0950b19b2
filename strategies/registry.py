"""Strategies by name, and which of them need nothing but the weighted mean of the updates."""

from collections.abc import Mapping

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from strategies.feddyn import FedDyn
from strategies.fednova import FedNova
from strategies.fedprox import FedProx
from strategies.local_only import LocalOnly
from strategies.qfedavg import QFedAvg
from strategies.scaffold import Scaffold

ENTRY_POINTS = "polyfed.strategies"

STRATEGIES: Mapping[str, type[Strategy]] = {
    "Bulyan": flower.Bulyan,
    "FedAdagrad": flower.FedAdagrad,
    "FedAdam": flower.FedAdam,
    "FedAvg": flower.FedAvg,
    "FedAvgM": flower.FedAvgM,
    "FedDyn": FedDyn,
    "FedMedian": flower.FedMedian,
    "FedNova": FedNova,
    "FedProx": FedProx,
    "FedTrimmedAvg": flower.FedTrimmedAvg,
    "FedYogi": flower.FedYogi,
    "Krum": flower.Krum,
    "LocalOnly": LocalOnly,
    "MultiKrum": flower.MultiKrum,
    "QFedAvg": QFedAvg,
    "Scaffold": Scaffold,
}

# Flower's classes that read nothing of the replies but their weighted mean. By exact class: a subclass
# may look at single updates, and says so by not setting `weighted_mean = True` in its own body.
WEIGHTED_MEANS = frozenset(
    {flower.FedAdagrad, flower.FedAdam, flower.FedAvg, flower.FedAvgM, flower.FedProx, flower.FedYogi}
)


def takes_weighted_mean(strategy: Strategy) -> bool:
    """Whether nodes may send this strategy the sum of their clients' updates instead of each one."""
    cls = type(strategy)
    return cls in WEIGHTED_MEANS or bool(cls.__dict__.get("weighted_mean", False))
