"""Strategies by name."""

import sys
from collections.abc import Mapping

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from strategies.algorithms.bulyan import Bulyan
from strategies.algorithms.ditto import Ditto
from strategies.algorithms.fedavgm import FedAvgM
from strategies.algorithms.feddyn import FedDyn
from strategies.algorithms.fednova import FedNova
from strategies.algorithms.fedopt import FedAdagrad, FedAdam, FedYogi
from strategies.algorithms.fedprox import FedProx
from strategies.algorithms.krum import Krum, MultiKrum
from strategies.algorithms.local_only import LocalOnly
from strategies.algorithms.qfedavg import QFedAvg
from strategies.algorithms.scaffold import Scaffold
from strategies.algorithms.trimmed_mean import FedTrimmedAvg
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
    "Bulyan": Bulyan,
    "DifferentialPrivacyClientSideAdaptiveClipping": DifferentialPrivacyClientSideAdaptiveClipping,
    "DifferentialPrivacyClientSideFixedClipping": DifferentialPrivacyClientSideFixedClipping,
    "DifferentialPrivacyServerSideAdaptiveClipping": DifferentialPrivacyServerSideAdaptiveClipping,
    "DifferentialPrivacyServerSideFixedClipping": DifferentialPrivacyServerSideFixedClipping,
    "Ditto": Ditto,
    "FedAdagrad": FedAdagrad,
    "FedAdam": FedAdam,
    "FedAvg": flower.FedAvg,
    "FedAvgM": FedAvgM,
    "FedDyn": FedDyn,
    "FedMedian": flower.FedMedian,
    "FedNova": FedNova,
    "FedProx": FedProx,
    "FedTrimmedAvg": FedTrimmedAvg,
    "FedYogi": FedYogi,
    "Krum": Krum,
    "LocalDP": LocalDP,
    "LocalOnly": LocalOnly,
    "MultiKrum": MultiKrum,
    "QFedAvg": QFedAvg,
    "Scaffold": Scaffold,
}


def brings(module: str) -> bool:
    """Return whether a module of this package, such as that of a rule, came with the built-in strategies."""
    return module.partition(".")[0] == __name__.partition(".")[0] and module in sys.modules
