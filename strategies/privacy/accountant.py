"""What a run's noise is worth: epsilon at a delta, counted by dp-accounting.

Two federations are neighbours if one client is replaced by another (its whole data, not an example); how many
clients there are is no secret. Replacing a client moves a sum of clipped updates by up to two clipping norms.
Cohorts are drawn of fixed size and without replacement, as Flower draws them, which is accounted for by
Wang, Balle and Kasiviswanathan 2019 (arXiv:1808.00087, theorem 27), in Rényi differential privacy.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # it takes two seconds to import, and most runs need none of it
    from dp_accounting import DpEvent
    from dp_accounting.rdp import RdpAccountant

NORMS_MOVED = 2.0
"""Clipping norms by which a sum of clipped updates moves when a client is replaced."""
CLOSE_ENOUGH = 1e-3
"""How far above the least noise multiplier for an epsilon the one that is found may be."""
LEAST_NOISE = 1e-2
"""Where the search for a noise multiplier starts; epsilon is beyond all use there."""
SEARCHED_ORDERS = (*(1 + tenth / 10 for tenth in range(1, 100)), 12, 16, 20, 24, 32, 48, 64, 512, 1024)
"""Rényi orders to search with: those that are costly are left out, so that epsilon may end a little lower."""


def usual_delta(num_clients: int) -> float:
    """Return num_clients**-1.1, as McMahan et al. 2018 choose it (arXiv:1710.06963); ten clients at least."""
    return float(max(num_clients, 10) ** -1.1)


def epsilon(
    noise_multiplier: float, cohort: int, rounds: Mapping[int, int], delta: float, amplified: bool = True
) -> float:
    """Return what rounds of `cohort` clients have cost; `rounds` counts them by how many were drawn from.

    The noise multiplier is the deviation of the noise on the sum of updates, in clipping norms. Of what
    sampling gives and what holds without it the smaller counts, as the bound for large samples is loose;
    the latter alone where sampling does not amplify.
    """
    from dp_accounting.rdp import compute_epsilon

    def total(sampled: bool) -> float:
        orders = _accountant().orders
        cost = sum(
            count * _one_round(noise_multiplier, cohort if sampled else population, population)
            for population, count in rounds.items()
        )
        return float(compute_epsilon(orders, cost, delta)[0])

    return min(total(sampled) for sampled in {amplified, False})


def least_noise(target: float, cohort: int, population: int, num_rounds: int, delta: float) -> float:
    """Return the noise multiplier for which that many rounds cost no more than epsilon `target`."""
    from dp_accounting import SelfComposedDpEvent

    def rounds_of(size: int) -> Callable[[float], "DpEvent"]:
        return lambda noise: SelfComposedDpEvent(_event(noise, size, population), num_rounds)

    return min(_calibrate(rounds_of(size), target, delta) for size in {cohort, population})


def _calibrate(make_event: Callable[[float], "DpEvent"], target: float, delta: float) -> float:
    from dp_accounting import LowerEndpointAndGuess, calibrate_dp_mechanism

    bracket = LowerEndpointAndGuess(LEAST_NOISE, 1.0)
    accountant = partial(_accountant, SEARCHED_ORDERS)
    return float(calibrate_dp_mechanism(accountant, make_event, target, delta, bracket, tol=CLOSE_ENOUGH))


@lru_cache(maxsize=64)
def _one_round(noise_multiplier: float, cohort: int, population: int) -> NDArray[np.float64]:
    """Return a round's cost by order; it takes a third of a second."""
    return np.asarray(_accountant().compose(_event(noise_multiplier, cohort, population)).rdp)


def _event(noise_multiplier: float, cohort: int, population: int) -> "DpEvent":
    from dp_accounting import GaussianDpEvent, SampledWithoutReplacementDpEvent

    noise = GaussianDpEvent(noise_multiplier / NORMS_MOVED)
    return noise if cohort == population else SampledWithoutReplacementDpEvent(population, cohort, noise)


def _accountant(orders: Sequence[float] | None = None) -> "RdpAccountant":
    """Return one that has counted nothing yet, with dp-accounting's own orders unless told."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.rdp import RdpAccountant

    return RdpAccountant(orders, neighboring_relation=NeighboringRelation.REPLACE_ONE)
