"""What server optimizers make of two clients' answers, in numbers that were worked out by hand.

The weight begins at 3. A step of 0.1 takes the clients to 2.7 and 2.2, so that their mean moves it by -0.55.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.serverapp.exception import AggregationError

from models.core.config import Value
from models.core.errors import UserError
from simulations.runtime.in_process import run_in_process

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
        ("QFedAvg", "q = 1.0", 3 - 77.5 / 198),
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


@pytest.mark.rounding
@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_qfedavg_goes_by_the_loss_at_the_received_weights(rest: Callable[..., float], engine: str) -> None:
    # Two steps, 3 -> 2.7 -> 2.43 and 3 -> 2.2 -> 1.72: L = 10, losses at 3 are 4.5 and 8.
    moved = (10 * (3 - 2.43), 10 * (3 - 1.72))
    delta = 4.5 * moved[0] + 8 * moved[1]
    h = moved[0] ** 2 + 10 * 4.5 + moved[1] ** 2 + 10 * 8
    found = rest("QFedAvg", rounds=1, task_options="steps = 2", strategy_options="q = 1.0", engine=engine)
    assert found == pytest.approx(3 - delta / h, abs=1e-6)


@pytest.mark.parametrize("q", ["0.1", "1.0"])
def test_qfedavg_refuses_a_negative_loss_by_name(rest: Callable[..., float], q: str) -> None:
    """At 3 the losses are 3 and -3: no number has the power 0.1 of -3, and by q = 1 it would weigh -3."""
    slopes = {"dataset": "slopes", "task": "quadratic:Slopes", "rounds": 1, "task_options": "steps = 1"}
    with pytest.raises(AggregationError) as error:
        rest("QFedAvg", strategy_options=f"q = {q}", **slopes)
    assert str(error.value) == (
        "QFedAvg takes powers of losses, which must be >= 0 (Li et al. 2020), and the loss of client 1 is -3:"
        " take another strategy, or a loss that is never negative"
    )
    # With q = 0 no loss counts: 3 +- 0.1, and back to their mean.
    assert rest("QFedAvg", strategy_options="q = 0.0", **slopes) == pytest.approx(3.0, abs=1e-6)
    with pytest.raises(UserError, match=r"q must be >= 0 and finite, got -1\.0"):
        rest("QFedAvg", strategy_options="q = -1.0", **slopes)


@pytest.mark.slow
def test_qfedavg_holds_for_the_learning_rate_of_the_run(rest: Callable[..., float]) -> None:
    with pytest.raises(UserError) as error:
        rest("QFedAvg", rounds=1, strategy_options="client_learning_rate = 0.05")
    assert str(error.value) == (
        "QFedAvg holds for one learning rate, its client_learning_rate, and it is 0.05 where clients train "
        "with 0.1: leave client_learning_rate out, or set learning-rate to it"
    )
    derived = rest("QFedAvg", rounds=1, task_options="steps = 1, warmup = 5", learning_rate=0.2)
    given = rest(
        "QFedAvg",
        rounds=1,
        task_options="steps = 1, warmup = 5",
        learning_rate=0.2,
        strategy_options="client_learning_rate = 0.2",
    )
    assert derived == given


@pytest.mark.slow
def test_what_is_measured_leaves_training_as_it_is(
    tiny: Callable[..., dict[str, Value]], tmp_path: Path
) -> None:
    """QFedAvg with q = 0 is a plain mean with a step of its own; its clients' losses are those of FedAvg."""
    losses = {}
    for strategy, options in (("FedAvg", ""), ("QFedAvg", "q = 0.0")):
        folder = tmp_path / strategy
        config = tiny(strategy=strategy, strategy_options=options, num_server_rounds=1, run_dir=str(folder))
        run_in_process({**config, "partitioner": "iid"})
        row = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        losses[strategy] = row["train"]["loss"]
    assert row["train"]["received-loss"] > row["train"]["loss"]
    assert losses["FedAvg"] == pytest.approx(losses["QFedAvg"], rel=1e-6)
