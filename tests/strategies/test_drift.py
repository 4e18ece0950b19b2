"""Where strategies come to rest: two clients with parabolas of different curvature, and many local steps."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from quadratic import CURVATURE, MINIMUM, OPTIMUM

from models.core.config import Value
from models.core.errors import UserError
from simulations.runtime.in_process import run_in_process
from strategies.algorithms.fednova import effective_steps
from strategies.algorithms.scaffold import ControlVariates
from strategies.rule import AuxTensors, ParameterResult, RuleResult, aux_arrays, split_aux

Make = Callable[..., dict[str, Value]]


def pull(steps: list[int], learning_rate: float, over: list[float]) -> float:
    """Return where sum_i (1 - (1 - lr a_i)**steps_i) (b_i - w) / over_i is zero."""
    pulls = [(1 - (1 - learning_rate * a) ** k) / n for a, k, n in zip(CURVATURE, steps, over, strict=True)]
    return sum(p * b for p, b in zip(pulls, MINIMUM, strict=True)) / sum(pulls)


@pytest.mark.rounding
def test_fedavg_stops_at_its_known_wrong_point(rest: Callable[..., float]) -> None:
    wrong = pull([20, 20], 0.1, [1, 1])
    assert wrong == pytest.approx(0.5324, abs=1e-4)
    assert rest("FedAvg") == pytest.approx(wrong, abs=1e-5)


@pytest.mark.rounding
@pytest.mark.parametrize(("num_nodes", "engine"), [(2, "loop"), (1, "stacked")])
@pytest.mark.parametrize(("strategy", "options"), [("Scaffold", ""), ("FedDyn", "alpha = 1.0")])
def test_corrected_clients_reach_the_optimum(
    rest: Callable[..., float], strategy: str, options: str, num_nodes: int, engine: str
) -> None:
    found = rest(strategy, num_nodes=num_nodes, strategy_options=options, engine=engine)
    assert found == pytest.approx(OPTIMUM, abs=1e-4)


@pytest.mark.rounding
@pytest.mark.parametrize(("strategy", "options"), [("Scaffold", ""), ("FedDyn", "alpha = 1.0")])
def test_they_reach_it_with_one_of_two_clients_a_round(
    rest: Callable[..., float], strategy: str, options: str
) -> None:
    found = rest(strategy, rounds=120, strategy_options=options, clients_per_round=1)
    assert found == pytest.approx(OPTIMUM, abs=1e-4)


@pytest.mark.rounding
@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "options"), [("Scaffold", ""), ("FedDyn", "alpha = 1.0")])
def test_every_client_counts_alike_however_many_examples_it_has(
    rest: Callable[..., float], strategy: str, options: str
) -> None:
    crowded = {"dataset": "crowded-valleys", "rounds": 120, "clients_per_round": 1, "num_nodes": 2}
    assert rest(strategy, strategy_options=options, **crowded) == pytest.approx(OPTIMUM, abs=1e-4)


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
        norms = [effective_steps(num_steps, momentum) for num_steps in (3, 6)]
        tau = sum(norms) / 2
        directions = [move / norm for move, norm in zip(moves, norms, strict=True)]
        w -= tau * sum(directions) / 2 if nova else sum(moves) / 2
    return w


@pytest.mark.rounding
@pytest.mark.parametrize("engine", ["loop", "stacked"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_fednova_equals_its_equation(rest: Callable[..., float], momentum: float, engine: str) -> None:
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


def test_effective_steps_count_every_gradient_as_often_as_momentum_repeats_it() -> None:
    # Three steps, momentum 1/2: the first gradient moves the weight 1 + 1/2 + 1/4 times, the last once.
    assert effective_steps(3, 0.5) == pytest.approx(1.75 + 1.5 + 1)
    assert effective_steps(7, 0.0) == 7


def test_scaffold_by_hand() -> None:
    rule = ControlVariates({})
    x, c, c_i = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]), torch.tensor([0.25, -1.0])
    aux = AuxTensors(anchor=x, sent={"control": c}, kept={"control": c_i})
    step = rule.gradient(torch.tensor([1.0, 1.0]), x, aux)
    assert step.tolist() == [1.25, 2.5]
    # Four steps of 0.25, to y: (x - y) / 1 is the client's mean step; less c, it is how far c_i moves.
    rule_result = rule.close({"w": ParameterResult(torch.tensor([0.0, 1.5]), aux, 4, 1.0, 0.0)})
    assert rule_result.aux["control-change"]["w"].tolist() == [0.5, 0.0]
    assert aux.kept["control"].tolist() == [0.75, -1.0]


def test_arrays_travel_beside_the_weights() -> None:
    arrays = {"w.0": 1, **aux_arrays("control", {"w.0": 2}), **aux_arrays("change", {"w.0": 3})}
    assert arrays.keys() == {"w.0", "control/w.0", "change/w.0"}
    assert split_aux(arrays) == ({"w.0": 1}, {"control": {"w.0": 2}, "change": {"w.0": 3}})
    assert RuleResult().aux == {}


@pytest.mark.parametrize(
    ("strategy", "overrides", "message"),
    [
        ("Scaffold", {"optimizer_options": "momentum = 0.5"}, "not for SGD with momentum 0.5: set optimizer"),
        ("Scaffold", {"optimizer": "adam"}, "Scaffold holds for SGD without momentum and not for Adam"),
        ("FedNova", {"optimizer": "adam"}, "FedNova holds for SGD, without dampening and nesterov, and not"),
        ("FedDyn", {"strategy_options": "alpha = 0.0"}, "alpha must be > 0, got 0.0"),
        ("Scaffold", {"strategy_options": "server_learning_rate = -1.0"}, "must be > 0, got -1.0"),
    ],
)
def test_what_the_theory_does_not_hold_for_is_refused(
    rest: Callable[..., float], strategy: str, overrides: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        rest(strategy, **overrides)


def test_any_optimizer_can_be_asked_for(rest: Callable[..., float]) -> None:
    rest("Scaffold", rounds=2, optimizer="adam", strategy_options="any_optimizer = true")
    rest("FedNova", rounds=2, optimizer="adam", strategy_options="any_optimizer = true")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["Scaffold", "FedDyn", "FedNova"])
def test_one_hash_for_one_node_and_three(tiny: Make, tmp_path: Path, strategy: str) -> None:
    hashes = set()
    for num_nodes in (1, 3):
        folder = tmp_path / str(num_nodes)
        plain = {"optimizer_options": "momentum = 0.0", "num_clients": 10, "clients_per_round": 8}
        run_in_process(tiny(strategy=strategy, run_dir=str(folder), num_server_rounds=3, **plain), num_nodes)
        hashes.add(json.loads((folder / "result.json").read_text())["weights_sha256"])
    assert len(hashes) == 1
