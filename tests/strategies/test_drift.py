"""Where strategies come to rest: two clients with parabolas of different curvature, and many local steps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message
from quadratic import CURVATURE, MINIMUM, OPTIMUM

import simulations.runtime.in_process
from models.core.config import Value
from models.core.errors import UserError
from simulations.runtime.in_process import InProcessGrid, run_in_process
from strategies.rule import RuleResult, aux_arrays, split_aux
from strategies.wire.request import unpack_requests

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
        (
            "FedNova",
            {"optimizer": "adam"},
            "FedNova holds for SGD and not for Adam: set optimizer = 'sgd'",
        ),
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
        hashes.add(json.loads((folder / "result.json").read_text(encoding="utf-8"))["weights_sha256"])
    assert len(hashes) == 1


class LosesReplies(InProcessGrid):
    """Node 1 goes away in rounds 2 and 3: with `works`, after its client has trained and saved its state."""

    works = True

    def _answer(self, message: Message) -> Message:
        message_type, node = message.metadata.message_type, message.metadata.dst_node_id
        goes = (
            message_type == "train"
            and node == 1
            and unpack_requests(message.content)[0].server_round in (2, 3)
        )
        if goes and not self.works:
            return Message(Error(5, "Node Unavailable"), reply_to=message)
        answer = super()._answer(message)
        return Message(Error(5, "Node Unavailable"), reply_to=message) if goes else answer


class NeverBegins(LosesReplies):
    works = False


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("Scaffold", {}),
        ("FedDyn", {"strategy_options": "alpha = 1.0"}),
        ("FedAvg", {"keep_optimizer": True, "optimizer_options": "momentum = 0.9"}),
    ],
)
def test_what_a_client_saved_for_a_reply_that_was_lost_does_not_count(
    rest: Callable[..., float], monkeypatch: pytest.MonkeyPatch, strategy: str, options: dict[str, Any]
) -> None:
    """Its c_i has moved on its disk and c has not: the server names the c_i before, and it goes on there."""
    found = {}
    for grid in (InProcessGrid, LosesReplies, NeverBegins):
        monkeypatch.setattr(simulations.runtime.in_process, "InProcessGrid", grid)
        found[grid] = rest(strategy, rounds=5, num_nodes=2, **options)
    assert found[LosesReplies] == found[NeverBegins] != found[InProcessGrid]
