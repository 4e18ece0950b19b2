"""Strategies by name."""

from collections.abc import Mapping

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from strategies.algorithms.ditto import Ditto
from strategies.algorithms.feddyn import FedDyn
from strategies.algorithms.fednova import FedNova
from strategies.algorithms.fedprox import FedProx
from strategies.algorithms.local_only import LocalOnly
from strategies.algorithms.qfedavg import QFedAvg
from strategies.algorithms.scaffold import Scaffold
from strategies.privacy.adaptive_clipping import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
)
from strategies.privacy.central_dp import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
)
from strategies.privacy.local_dp import LocalDP

ENTRY_POINTS = "polyfed.strategies"

STRATEGIES: Mapping[str, type[Strategy]] = {
    "Bulyan": flower.Bulyan,
    "DifferentialPrivacyClientSideAdaptiveClipping": DifferentialPrivacyClientSideAdaptiveClipping,
    "DifferentialPrivacyClientSideFixedClipping": DifferentialPrivacyClientSideFixedClipping,
    "DifferentialPrivacyServerSideAdaptiveClipping": DifferentialPrivacyServerSideAdaptiveClipping,
    "DifferentialPrivacyServerSideFixedClipping": DifferentialPrivacyServerSideFixedClipping,
    "Ditto": Ditto,
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
    "LocalDP": LocalDP,
    "LocalOnly": LocalOnly,
    "MultiKrum": flower.MultiKrum,
    "QFedAvg": QFedAvg,
    "Scaffold": Scaffold,
}
