"""How the clipping norm goes on from round to round: as it is, or after a quantile of the updates' norms."""

import math
from dataclasses import dataclass
from typing import Protocol

from strategies.privacy.budget import check_positive
from strategies.privacy.noise import Noise


class NormPolicy(Protocol):
    """Which norm each round clips to, and what of the noise that costs."""

    @property
    def first(self) -> float:
        """The norm of the first round."""

    def check(self, noise_multiplier: float) -> None:
        """Raise ValueError for numbers out of range, and for what this noise leaves no room for."""

    def update_noise(self, noise_multiplier: float) -> float:
        """Return what of the noise multiplier the sum of updates gets, in clipping norms."""

    def next_norm(self, norm: float, num_clients: float, clipped: float, noise: Noise) -> float:
        """Return the next round's norm; this one's has clipped a share `clipped` of `num_clients`."""


@dataclass(frozen=True)
class FixedNorm:
    """The same norm in every round, and all the noise for the updates."""

    first: float
    """The norm."""

    def check(self, noise_multiplier: float) -> None:
        """Raise ValueError for a norm that is not positive."""
        check_positive("clipping norm", self.first)

    def update_noise(self, noise_multiplier: float) -> float:
        """Return the noise multiplier."""
        return noise_multiplier

    def next_norm(self, norm: float, num_clients: float, clipped: float, noise: Noise) -> float:
        """Return the norm."""
        return norm


@dataclass(frozen=True)
class AdaptiveNorm:
    """Norm that follows a quantile of the updates' norms (Andrew et al. 2021, arXiv:1905.03871).

    Of each cohort the share that was clipped is told with noise, and the norm moves towards the one that
    clips the share that was asked for. The noise multiplier is that of both releases together (theorem 1).
    """

    first: float
    """The norm of the first round."""
    target_quantile: float
    """Share of the clients whose updates are to be shorter than the norm."""
    learning_rate: float
    """How fast the logarithm of the norm moves."""
    count_stddev: float
    """Standard deviation of the noise on the number of clipped clients."""
    cohort: int
    """Clients that are asked in a round."""

    def check(self, noise_multiplier: float) -> None:
        """Raise ValueError for numbers out of range, and for noise that the count's cannot go with."""
        check_positive("clipping norm", self.first)
        if not 0 <= self.target_quantile <= 1:
            raise ValueError(f"target_clipped_quantile must be in [0, 1], got {self.target_quantile}")
        if self.learning_rate <= 0:
            raise ValueError(f"clip_norm_lr must be > 0, got {self.learning_rate}")
        if self.count_stddev < 0 or 0 < noise_multiplier >= 2 * self.count_stddev:
            least = noise_multiplier / 2
            raise ValueError(
                f"clipped_count_stddev must be > noise_multiplier / 2 ({least:.4g}), "
                f"got {self.count_stddev:g}"
            )

    def update_noise(self, noise_multiplier: float) -> float:
        """Return what is left of the noise multiplier; the count's noise, off by 1/2, takes the rest."""
        if not noise_multiplier:
            return 0.0
        return float((noise_multiplier**-2 - (2 * self.count_stddev) ** -2) ** -0.5)

    def next_norm(self, norm: float, num_clients: float, clipped: float, noise: Noise) -> float:
        """Return C * exp(lr * (share clipped - target)); a client that failed counts as half clipped."""
        count = noise.add_to(num_clients * (clipped - 0.5), self.count_stddev, moved=1.0)
        share = 0.5 + count / self.cohort
        return norm * math.exp(self.learning_rate * (share - self.target_quantile))
