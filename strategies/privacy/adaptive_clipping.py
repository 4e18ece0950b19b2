"""Adaptive clipping (Andrew et al. 2021, arXiv:1905.03871): the norm follows a quantile of norms.

Of each cohort the share that was clipped is told with noise, and the norm moves towards the one that clips
the share that was asked for. `noise_multiplier` and epsilon are those of both releases together (theorem 1).
"""

import math

import numpy as np
from flwr.serverapp.strategy import Strategy

from strategies.privacy.central_dp import CentralDP, ClipsOnClients, ClipsOnServer


class AdaptiveDP(CentralDP):
    """Central DP with a norm that adapts.

    `clipped_count_stddev` is the deviation of the noise on the number of clipped clients, a twentieth of the
    cohort unless given.
    """

    def __init__(
        self,
        strategy: Strategy,
        num_sampled_clients: int,
        num_clients: int,
        num_rounds: int,
        initial_clipping_norm: float = 0.1,
        target_clipped_quantile: float = 0.5,
        clip_norm_lr: float = 0.2,
        clipped_count_stddev: float | None = None,
        noise_multiplier: float | None = None,
        target_epsilon: float | None = None,
        delta: float | None = None,
    ) -> None:
        super().__init__(
            strategy,
            num_sampled_clients,
            num_clients,
            num_rounds,
            initial_clipping_norm,
            noise_multiplier,
            target_epsilon,
            delta,
        )
        if not 0 <= target_clipped_quantile <= 1:
            raise ValueError(f"target_clipped_quantile must be in [0, 1], got {target_clipped_quantile}")
        if clip_norm_lr <= 0:
            raise ValueError(f"clip_norm_lr must be > 0, got {clip_norm_lr}")
        stddev = clipped_count_stddev
        if stddev is None:
            stddev = num_sampled_clients / 20 if self.noise_multiplier else 0.0
        if stddev < 0 or 0 < self.noise_multiplier >= 2 * stddev:
            least = self.noise_multiplier / 2
            raise ValueError(
                f"clipped_count_stddev must be > noise_multiplier / 2 ({least:.4g}), got {stddev:g}"
            )
        self.target_clipped_quantile = target_clipped_quantile
        self.clip_norm_lr = clip_norm_lr
        self.clipped_count_stddev = stddev

    @property
    def update_noise(self) -> float:
        """What of the noise multiplier is left for the updates; the count's, off by 1/2, takes the rest."""
        if not self.noise_multiplier:
            return 0.0
        return float((self.noise_multiplier**-2 - (2 * self.clipped_count_stddev) ** -2) ** -0.5)

    def _adapt(self, num_clients: float, clipped: float) -> None:
        """Set C to C * exp(lr * (share clipped - target)); a client that failed counts as half clipped."""
        noise = np.random.normal(0.0, self.clipped_count_stddev)
        share = 0.5 + (num_clients * (clipped - 0.5) + noise) / self.num_sampled_clients
        self.clipping_norm *= math.exp(self.clip_norm_lr * (share - self.target_clipped_quantile))


class DifferentialPrivacyServerSideAdaptiveClipping(ClipsOnServer, AdaptiveDP):
    """Central DP; the server clips updates to a norm that adapts."""


class DifferentialPrivacyClientSideAdaptiveClipping(ClipsOnClients, AdaptiveDP):
    """Central DP; clients clip their updates to a norm that adapts."""

    weighted_mean = True
