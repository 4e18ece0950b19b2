"""How much noise a private run adds, and how much it may spend."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from flwr.serverapp.strategy import Strategy

from strategies.declaration import declaration_of
from strategies.privacy.accountant import usual_delta

DRAWN_FROM = "drawn-from"
"""Name under which a private strategy tells of how many clients it drew a round's cohort."""


@dataclass(frozen=True)
class Budget:
    """Noise of a private run, and the epsilon that must not be exceeded."""

    noise_multiplier: float
    """Standard deviation of the noise, in clipping norms; 0 is no noise, and no privacy."""
    delta: float
    """Delta at which epsilon is counted."""
    target_epsilon: float | None = None
    """Epsilon that no round may exceed; None sets no limit."""

    def check(self, server_round: int, epsilon: float) -> None:
        """Raise ValueError for a round after which epsilon would be beyond the target."""
        if self.target_epsilon is not None and epsilon > self.target_epsilon:
            raise ValueError(
                f"round {server_round} would bring epsilon to {epsilon:.4g}, beyond target_epsilon"
            )


def calibrate(
    num_clients: int,
    noise_multiplier: float | None,
    target_epsilon: float | None,
    delta: float | None,
    least_noise: Callable[[float, float], float],
) -> Budget:
    """Return the budget of a run that is given its noise or its epsilon.

    `least_noise` finds the multiplier for (`target_epsilon`, `delta`); `delta` is num_clients**-1.1 unless
    given. Raises ValueError for numbers out of range, and unless one of the two is given.
    """
    if (noise_multiplier is None) == (target_epsilon is None):
        raise ValueError("give noise_multiplier or target_epsilon, one of the two")
    delta = usual_delta(num_clients) if delta is None else delta
    if not 0 < delta < 1:
        raise ValueError(f"delta must be > 0 and < 1, got {delta}")
    if target_epsilon is not None:
        check_positive("target_epsilon", target_epsilon)
        noise_multiplier = least_noise(target_epsilon, delta)
    elif noise_multiplier:  # none at all is allowed: clipping alone
        check_positive("noise_multiplier", noise_multiplier)
    return Budget(noise_multiplier or 0.0, delta, target_epsilon)


def check_positive(name: str, value: float) -> None:
    """Raise ValueError for a number that is not positive, or not finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be > 0 and finite, got {value}")


def check_replies_can_be_clipped(strategy: Strategy) -> None:
    """Raise ValueError for a strategy whose clients reply aux tensors, which have no start to clip from."""
    if declaration_of(strategy).replies_aux:
        raise ValueError(
            f"clients of {type(strategy).__name__} reply more than weights, which no clipping bounds: "
            "take another strategy, such as FedAvg, FedAdam or FedProx"
        )
