"""Central DP with a norm that adapts (Andrew et al. 2021, arXiv:1905.03871).

`noise_multiplier` and epsilon are those of both releases together, of the updates and of the number of
clients that were clipped.
"""

from dataclasses import dataclass, field

from strategies.privacy.central_dp import CentralDP
from strategies.privacy.clipping import OnClients, OnServer
from strategies.privacy.norms import AdaptiveNorm


@dataclass(eq=False)
class DifferentialPrivacyServerSideAdaptiveClipping(CentralDP):
    """Central DP; the server clips updates to a norm that adapts.

    `clipped_count_stddev` is the deviation of the noise on the number of clipped clients, a twentieth of the
    cohort unless given.
    """

    place = OnServer()

    clipping_norm: float = field(init=False)
    initial_clipping_norm: float = 0.1
    """First norm; it follows the clients from there."""
    target_clipped_quantile: float = 0.5
    """Part of the updates that the norm shall leave whole."""
    clip_norm_lr: float = 0.2
    """Step size of the norm's logarithm."""
    clipped_count_stddev: float | None = None
    """Deviation of the noise on the number of clipped clients; a twentieth of the cohort unless given."""

    @property
    def norm_policy(self) -> AdaptiveNorm:
        """Follow the quantile."""
        return adaptive_norm(self)


@dataclass(eq=False)
class DifferentialPrivacyClientSideAdaptiveClipping(CentralDP):
    """Central DP; clients clip their updates to a norm that adapts."""

    place = OnClients()
    declaration = CentralDP.declaration  # stated again: the weighted mean is enough for this class

    clipping_norm: float = field(init=False)
    initial_clipping_norm: float = 0.1
    """First norm; it follows the clients from there."""
    target_clipped_quantile: float = 0.5
    """Part of the updates that the norm shall leave whole."""
    clip_norm_lr: float = 0.2
    """Step size of the norm's logarithm."""
    clipped_count_stddev: float | None = None
    """Deviation of the noise on the number of clipped clients; a twentieth of the cohort unless given."""

    @property
    def norm_policy(self) -> AdaptiveNorm:
        """Follow the quantile."""
        return adaptive_norm(self)


def adaptive_norm(
    strategy: DifferentialPrivacyServerSideAdaptiveClipping | DifferentialPrivacyClientSideAdaptiveClipping,
) -> AdaptiveNorm:
    """Return the policy that the options of a strategy ask for."""
    cohort, stddev = strategy.num_sampled_clients, strategy.clipped_count_stddev
    if stddev is None:
        stddev = cohort / 20 if strategy.noise_multiplier else 0.0
    return AdaptiveNorm(
        first=strategy.initial_clipping_norm,
        target_quantile=strategy.target_clipped_quantile,
        learning_rate=strategy.clip_norm_lr,
        count_stddev=stddev,
        cohort=cohort,
    )
