"""What server optimizers make of two clients' answers, in numbers that were worked out by hand.

The weight begins at 3. A step of 0.1 takes the clients to 2.7 and 2.2, so that their mean moves it by -0.55.
"""

from collections.abc import Callable

import pytest

ADAPTIVE = "eta = 0.1, beta_1 = 0.9, beta_2 = 0.99, tau = 0.5"


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("strategy", "options", "expected"),
    [
        ("FedAvg", "", 2.45),
        # m = 0.1 * -0.55 and v = 0.01 * 0.55^2, so that sqrt(v) = 0.055 in both:
        ("FedYogi", ADAPTIVE, 3 - 0.1 * 0.055 / 0.555),
        # ... and Flower counts the first round as Adam's second step: eta * sqrt(1 - 0.99^2) / (1 - 0.9^2).
        ("FedAdam", ADAPTIVE, 3 - 0.074245979 * 0.055 / 0.555),
        ("FedAdagrad", "eta = 0.1, tau = 0.5", 3 - 0.1 * 0.55 / (0.55 + 0.5)),
        ("FedAvgM", "server_learning_rate = 0.5, server_momentum = 0.9", 2.725),
        # L = 10, losses 4.5 and 8, gradients 3 and 8: (4.5 * 3 + 8 * 8) / (9 + 10 * 4.5 + 64 + 10 * 8).
        ("QFedAvg", "client_learning_rate = 0.1, q = 1.0", 3 - 77.5 / 198),
    ],
)
def test_the_first_round(rest: Callable[..., float], strategy: str, options: str, expected: float) -> None:
    found = rest(strategy, rounds=1, task_options="steps = 1", strategy_options=options)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("strategy", "options", "expected"),
    [
        # From 2.725 the clients go to 2.4525 and 2.035; 0.9 of the first move of 0.55 comes on top.
        (
            "FedAvgM",
            "server_learning_rate = 0.5, server_momentum = 0.9",
            2.725 - 0.5 * (0.9 * 0.55 + 0.48125),
        ),
        # From 2.947619 they go to 2.652857 and 2.168571: v = 0.55^2 + 0.536905^2.
        ("FedAdagrad", "eta = 0.1, tau = 0.5", 2.947619 - 0.1 * 0.536905 / (0.768614 + 0.5)),
    ],
)
def test_the_second_round_remembers(
    rest: Callable[..., float], strategy: str, options: str, expected: float
) -> None:
    found = rest(strategy, rounds=2, task_options="steps = 1", strategy_options=options)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.rounding
def test_fedprox_pulls_from_the_second_step_on(rest: Callable[..., float]) -> None:
    # 2.7 - 0.1 * (2.7 - 0.3) and 2.2 - 0.1 * (4.8 - 0.8): each is drawn back to 3.
    found = rest("FedProx", rounds=1, task_options="steps = 2", strategy_options="proximal_mu = 1.0")
    assert found == pytest.approx((2.46 + 1.8) / 2, abs=1e-6)


PUBLISHED = "eta = 0.1, tau = 0.5, published = true"
BETAS = "beta_1 = 0.9, beta_2 = 0.99"


def by_hand(name: str, rounds: int) -> float:
    """Return the weight after algorithm 2 of Reddi et al. 2021, written out; a client's step is 0.1."""
    x, m, v = 3.0, 0.0, 0.5**2
    for _ in range(rounds):
        delta = sum(-0.1 * a * (x - b) for a, b in ((1.0, 0.0), (4.0, 1.0))) / 2
        beta_1, beta_2 = (0.0, 0.0) if name == "FedAdagrad" else (0.9, 0.99)
        m = beta_1 * m + (1 - beta_1) * delta
        if name == "FedAdagrad":
            v = v + delta**2
        elif name == "FedYogi":
            v = v - (1 - beta_2) * delta**2 * (1 if v > delta**2 else -1)
        else:
            v = beta_2 * v + (1 - beta_2) * delta**2
        x += 0.1 * m / (v**0.5 + 0.5)
    return x


@pytest.mark.rounding
@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("name", ["FedAdam", "FedYogi", "FedAdagrad"])
def test_the_published_algorithm_is_to_be_had(rest: Callable[..., float], name: str, rounds: int) -> None:
    options = PUBLISHED if name == "FedAdagrad" else f"{PUBLISHED}, {BETAS}"
    found = rest(name, rounds=rounds, task_options="steps = 1", strategy_options=options)
    assert found == pytest.approx(by_hand(name, rounds), abs=1e-6)


def test_the_first_published_step_is_eta_where_flowers_is_three_quarters_of_it() -> None:
    """Where tau is nothing beside the update, and the moments are one update's."""
    assert pytest.approx(0.742, abs=1e-3) == (1 - 0.99**2) ** 0.5 / (1 - 0.9**2)
