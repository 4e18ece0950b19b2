"""Epsilon is dp-accounting's, for the relation and the sampling that we say."""

import dp_accounting as dp
import pytest
from dp_accounting.rdp import RdpAccountant

from strategies.privacy.accountant import epsilon, least_noise, usual_delta


def counted(*events: dp.DpEvent, delta: float) -> float:
    """Return epsilon by dp-accounting, neighbours being federations with one client replaced."""
    accountant = RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    for event in events:
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def drawn(cohort: int, population: int, noise_in_norms: float, rounds: int) -> dp.DpEvent:
    # Replacing a client moves a sum of updates of length C by 2 C.
    gaussian = dp.GaussianDpEvent(noise_in_norms / 2)
    return dp.SelfComposedDpEvent(dp.SampledWithoutReplacementDpEvent(population, cohort, gaussian), rounds)


def test_epsilon_of_drawn_cohorts() -> None:
    expected = counted(drawn(10, 1000, 2.0, 50), delta=1e-4)
    assert epsilon(2.0, 10, {1000: 50}, 1e-4) == pytest.approx(expected, rel=1e-12)
    assert 0.1 < expected < counted(dp.SelfComposedDpEvent(dp.GaussianDpEvent(1.0), 50), delta=1e-4) / 10


def test_epsilon_of_everybody_every_round() -> None:
    expected = counted(dp.SelfComposedDpEvent(dp.GaussianDpEvent(2.0), 7), delta=1e-3)
    assert epsilon(4.0, 30, {30: 7}, 1e-3) == pytest.approx(expected, rel=1e-12)


def test_sampling_never_costs_more_than_none() -> None:
    """The bound for drawn cohorts is loose where they are most of the clients."""
    everybody = counted(dp.SelfComposedDpEvent(dp.GaussianDpEvent(1.0), 10), delta=0.01)
    assert counted(drawn(90, 100, 2.0, 10), delta=0.01) > everybody
    assert epsilon(2.0, 90, {100: 10}, 0.01) == pytest.approx(everybody, rel=1e-12)


def test_rounds_that_drew_from_fewer_clients_cost_more() -> None:
    expected = counted(drawn(10, 1000, 2.0, 30), drawn(10, 500, 2.0, 20), delta=1e-4)
    assert epsilon(2.0, 10, {1000: 30, 500: 20}, 1e-4) == pytest.approx(expected, rel=1e-12)
    assert expected > epsilon(2.0, 10, {1000: 50}, 1e-4)


@pytest.mark.parametrize(("cohort", "population"), [(10, 1000), (40, 40)])
def test_the_least_noise_for_an_epsilon(cohort: int, population: int) -> None:
    noise = least_noise(8.0, cohort, population, 20, 1e-4)
    assert 7.9 < epsilon(noise, cohort, {population: 20}, 1e-4) <= 8.0


def test_the_usual_delta_is_below_one_client_in_all() -> None:
    assert usual_delta(1000) == pytest.approx(1000**-1.1)
    assert usual_delta(1) == usual_delta(10) < 0.1
