"""FedNova: however the clients step, and however often, their gradients count alike."""

from collections.abc import Callable

import pytest
import torch
from quadratic import CURVATURE, MINIMUM, OPTIMUM
from torch.optim import SGD

from clients.steps import StepCount
from strategies.algorithms.fednova import FedNova
from strategies.declaration import Declaration

Rest = Callable[..., float]


class FedNovaProx(FedNova):
    """FedNova with a proximal term, as a plugin composes it."""

    declaration = Declaration(
        local_rules=("strategies.algorithms.fedprox:Proximal", "strategies.algorithms.fednova:Normalized"),
        replies_aux=True,
    )

    def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
        config["proximal-mu"] = 2.0
        return super().configure_train(server_round, arrays, config, grid)


def closed_form(num_steps: int, momentum: float) -> float:
    """Return ||a_i||_1 of SGD with momentum from a fresh start, as section 4.1 of the paper has it."""
    rho = momentum
    return (num_steps - rho * (1 - rho**num_steps) / (1 - rho)) / (1 - rho)


def by_hand(learning_rate: float, momentum: float, rounds: int, *, nova: bool) -> float:
    """Return where FedAvg or FedNova is after clients of 3 and 6 steps; eq. 8 of the paper, in the open."""
    w = 3.0
    for _ in range(rounds):
        moves = []
        for a, b, num_steps in zip(CURVATURE, MINIMUM, (3, 6), strict=True):
            y, velocity = w, 0.0
            for _ in range(num_steps):
                velocity = momentum * velocity + a * (y - b)
                y -= learning_rate * velocity
            moves.append(w - y)
        norms = [closed_form(num_steps, momentum) for num_steps in (3, 6)]
        tau = sum(norms) / 2
        directions = [move / norm for move, norm in zip(moves, norms, strict=True)]
        w -= tau * sum(directions) / 2 if nova else sum(moves) / 2
    return w


@pytest.mark.rounding
@pytest.mark.parametrize("engine", ["loop", "stacked"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_fednova_equals_its_equation(rest: Rest, momentum: float, engine: str) -> None:
    found = rest(
        "FedNova",
        rounds=10,
        task_options="steps = 3, unequal = true",
        learning_rate=0.01,
        optimizer_options=f"momentum = {momentum}",
        engine=engine,
    )
    assert found == pytest.approx(by_hand(0.01, momentum, 10, nova=True), abs=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_fednova_removes_the_bias_of_unequal_steps(momentum: float) -> None:
    fedavg, fednova = (abs(by_hand(0.01, momentum, 2000, nova=nova) - OPTIMUM) for nova in (False, True))
    assert fedavg > 0.07
    assert fednova < 0.25 * fedavg  # what remains is the bias of unequal curvature, as FedAvg has it
    fedavg, fednova = (abs(by_hand(1e-4, momentum, 100_000, nova=nova) - OPTIMUM) for nova in (False, True))
    assert fednova < 1e-3 < 0.08 < fedavg


SCHEDULES = {
    "plain": {},
    "momentum": {"optimizer_options": "momentum = 0.9"},
    "kept momentum": {"optimizer_options": "momentum = 0.9", "keep_optimizer": True},
    "dampening": {"optimizer_options": "momentum = 0.9, dampening = 0.5", "keep_optimizer": True},
    "nesterov": {"optimizer_options": "momentum = 0.9, nesterov = true", "keep_optimizer": True},
    "warm-up": {"warmup": 5},
    "kept momentum in a warm-up": {
        "optimizer_options": "momentum = 0.9",
        "keep_optimizer": True,
        "warmup": 5,
    },
}
"""What makes steps of one client, or of one round, go further than others."""


@pytest.mark.rounding
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("strategy", ["FedNova", "test_fednova:FedNovaProx"])
def test_opposite_slopes_hold_each_other_however_often_each_client_steps(
    rest: Rest, strategy: str, name: str
) -> None:
    """Gradients are 1 on the one client and -1 on the other, wherever the weight is: three steps, and six."""
    given = dict(SCHEDULES[name])
    slopes = {
        "dataset": "slopes",
        "task": "quadratic:Slopes",
        "task_options": f"steps = 3, unequal = true, warmup = {given.pop('warmup', 0)}",
        "learning_rate": 0.1,
        **given,
    }
    assert rest(strategy, rounds=6, **slopes) == pytest.approx(3.0, abs=2e-5)
    assert abs(rest("FedAvg", rounds=6, **slopes) - 3.0) > 0.5


@pytest.mark.rounding
@pytest.mark.parametrize("name", ["kept momentum", "warm-up"])
def test_it_comes_to_rest_at_the_optimum(rest: Rest, name: str) -> None:
    given = dict(SCHEDULES[name])
    twins = {
        "dataset": "twin-valleys",
        "task_options": f"steps = 3, unequal = true, warmup = {given.pop('warmup', 0)}",
        "learning_rate": 0.02 if "warmup" in SCHEDULES[name] else 0.002,
        **given,
    }
    assert rest("FedNova", rounds=120, **twins) == pytest.approx(0.5, abs=0.01)
    assert abs(rest("FedAvg", rounds=120, **twins) - 0.5) > 0.1


def test_the_steps_of_a_fresh_start_are_those_of_the_closed_form() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.25, momentum=0.5)
    count = StepCount(pull=0.0)
    for _ in range(3):
        count.add(optimizer, optimizer.param_groups[0])
    # Momentum 1/2: the first gradient moves the weight 1 + 1/2 + 1/4 times, the last once.
    assert closed_form(3, 0.5) == 1.75 + 1.5 + 1
    assert (count.num_steps, count.path, count.gradient_sum) == (3, 0.75, 0.25 * 4.25)


def test_a_pull_makes_early_gradients_count_less() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.25)
    count = StepCount(pull=2.0)
    for _ in range(3):
        count.add(optimizer, optimizer.param_groups[0])
    # Each step leaves 1 - 0.25 * 2 of the way that is behind it: section 4.1 of the paper, proximal updates.
    assert count.gradient_sum == 0.25 * (0.5**2 + 0.5 + 1)
