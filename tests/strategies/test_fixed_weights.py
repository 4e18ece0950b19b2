"""SCAFFOLD and FedDyn: what the server holds is the mean of what the clients keep, whatever they reply."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from quadratic import idle_state

from clients.state import ClientStates
from models.core.config import Value
from server.checkpoint import CheckpointFolder
from server.config import ServerConfig
from server.plan import make_plan
from server.strategy import load_strategy
from simulations.runtime.in_process import run_in_process
from strategies.algorithms.feddyn import FedDyn
from strategies.algorithms.scaffold import ControlVariates, Scaffold
from strategies.memory import restore
from strategies.rule import AuxTensors, ParameterResult, aux_arrays
from strategies.wire.arrays import to_record
from strategies.wire.identity import let_messages_be_made

Make = Callable[..., dict[str, Value]]
Rest = Callable[..., float]
HELD = {"Scaffold": "control", "FedDyn": "slope", "LocalDP": "slope"}
"""Strategy -> what it holds, and its clients keep under the same name."""
BY_EXAMPLES = "weighted_by_key = 'num-examples'"


def result(weight: list[float], aux: AuxTensors, path: float) -> ParameterResult:
    return ParameterResult(torch.tensor(weight), aux, num_steps=4, path=path, gradient_sum=path)


def test_scaffold_by_hand() -> None:
    rule = ControlVariates({})
    x, c, c_i = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]), torch.tensor([0.25, -1.0])
    aux = AuxTensors(anchor=x, sent={"control": c}, kept={"control": c_i})
    step = rule.gradient(torch.tensor([1.0, 1.0]), x, aux)
    assert step.tolist() == [1.25, 2.5]
    # Four steps of 0.25, to y: (x - y) / 1 is the client's mean step; less c, it is how far c_i moves.
    rule_result = rule.close({"w": result([0.0, 1.5], aux, 1.0)})
    assert rule_result.aux["control-change"]["w"].tolist() == [0.5, 0.0]
    assert aux.kept["control"].tolist() == [0.75, -1.0]


def test_a_weight_that_no_objective_trains_changes_nothing() -> None:
    aux = AuxTensors(torch.ones(1), {"control": torch.zeros(1)}, {"control": torch.zeros(1)})
    rule_result = ControlVariates({}).close({"w": result([1.0], aux, 0.0)})
    assert rule_result.aux["control-change"]["w"].tolist() == [0.0]


@pytest.mark.parametrize("strategy", ["Scaffold", "FedDyn", "FedNova", "FedProx"])
def test_no_gradient_is_a_gradient_of_zero(rest: Rest, tmp_path: Path, strategy: str) -> None:
    options = "proximal_mu = 1.0" if strategy == "FedProx" else ""
    states = []
    for zeros in ("false", "true"):
        rest(
            strategy,
            rounds=4,
            task="quadratic:Idle",
            task_options=f"steps = 4, zeros = {zeros}",
            strategy_options=options,
        )
        newest = max(tmp_path.glob("run-*"), key=lambda path: int(path.name.split("-")[1]))
        states.append(idle_state(newest))
    assert states[0] == states[1]
    assert states[0]["idle"] == [1.0]
    assert states[0]["part"] != [2.0, -1.0]


class Connected:
    """The clients that are connected."""

    def __init__(self, *clients: int) -> None:
        self.clients = clients

    def get_node_ids(self) -> tuple[int, ...]:
        return self.clients


def play(strategy: Any, connected: int, changes: dict[int, tuple[float, float] | None]) -> None:
    """Let clients reply (change of control, number of examples), or fail."""
    let_messages_be_made()
    arrays = to_record({"w": np.zeros(1, np.float32)})
    grid: Any = Connected(*range(connected))
    asked = {
        each.metadata.dst_node_id: each
        for each in strategy.configure_train(1, arrays, ConfigRecord({"server-round": 1}), grid)
    }
    replies = []
    for client in asked:
        if (given := changes[client]) is None:
            replies.append(Message(Error(0), reply_to=asked[client]))
            continue
        moved = np.array([given[0]], np.float32)
        content = {"w": np.zeros(1, np.float32), **aux_arrays("control-change", {"w": moved})}
        metrics = MetricRecord({"num-examples": given[1], "num-clients": 1.0})
        replies.append(
            Message(RecordDict({"arrays": to_record(content), "metrics": metrics}), reply_to=asked[client])
        )
    strategy.aggregate_train(1, replies)


def scaffold(options: str = "", **config: Any) -> Any:
    return load_strategy(
        ServerConfig(strategy="Scaffold", strategy_options=options, **config), num_clients=10
    )


def test_all_clients_count_and_not_only_those_that_are_connected() -> None:
    strategy = scaffold(clients_per_round=3)
    play(strategy, 3, {0: (4.0, 1), 1: (2.0, 9), 2: None})
    assert strategy.control["w"].tolist() == [np.float32(0.6)]  # (4 + 2) / 10, with three connected


def test_the_weight_of_a_client_is_that_of_its_first_reply() -> None:
    strategy = scaffold(BY_EXAMPLES, clients_per_round=2)
    play(strategy, 2, {0: (4.0, 30), 1: (2.0, 10)})
    # Ten clients have 200 examples if they have as many as these two.
    assert strategy.control["w"].tolist() == [np.float32((30 * 4 + 10 * 2) / 200)]
    play(strategy, 2, {0: (-4.0, 1), 1: (1.0, 1)})  # now c_0 = 0 and c_1 = 3, with their weights of before
    assert strategy.control["w"] == pytest.approx([10 * 3 / 200])
    assert strategy.client_weights == {0: 30.0, 1: 10.0}


def test_a_mean_over_clients_that_came_later_is_the_mean_over_all() -> None:
    strategy = scaffold(BY_EXAMPLES, clients_per_round=1)
    c, n = {}, {0: 30.0, 1: 10.0, 2: 50.0}
    for server_round in range(12):
        client = server_round % 3
        change = 1.0 + server_round - 2 * client
        c[client] = c.get(client, 0.0) + change
        grid_of_one: Any = {client: (change, n[client])}
        strategy.min_available_nodes = 1
        play_one(strategy, client, grid_of_one)
    mean = sum(n[client] * c[client] for client in c) / sum(n.values())
    assert strategy.control["w"] == pytest.approx([mean * 3 / 10])  # the other seven have kept nothing


def play_one(strategy: Any, client: int, changes: dict[int, tuple[float, float] | None]) -> None:
    """Let one client be connected."""
    original = Connected.get_node_ids
    try:
        Connected.get_node_ids = lambda self: (client,)  # type: ignore[method-assign, assignment]
        play(strategy, 1, changes)
    finally:
        Connected.get_node_ids = original  # type: ignore[method-assign]


@pytest.mark.parametrize(("cls", "held"), [(Scaffold, "control"), (FedDyn, "slope")])
def test_heirs_that_pass_options_on_know_the_federation(cls: type, held: str) -> None:
    strategy: Any = load_strategy(ServerConfig(strategy=f"{__name__}:Heir{cls.__name__}"), num_clients=7)
    assert strategy.num_clients == 7
    assert getattr(strategy, held) == {}


class HeirScaffold(Scaffold):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


class HeirFedDyn(FedDyn):
    pass


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("strategy", "options"), [("Scaffold", BY_EXAMPLES), ("FedDyn", f"alpha = 1.0, {BY_EXAMPLES}")]
)
def test_the_mean_over_examples_is_minimized_where_it_is_asked_for(
    rest: Rest, strategy: str, options: str
) -> None:
    """Three examples of a parabola of curvature 1 at 0, and one of curvature 4 at 1: 4 / (3 + 4)."""
    crowded = {"dataset": "crowded-valleys", "rounds": 120, "clients_per_round": 1}
    assert rest(strategy, strategy_options=options, **crowded) == pytest.approx(4 / 7, abs=1e-4)


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("strategy", "options", "compression"),
    [
        ("Scaffold", "", "int8"),
        ("Scaffold", "", "top-k"),
        ("Scaffold", "", ""),
        ("FedDyn", "", "int8"),
        ("FedDyn", "", "top-k"),
        ("LocalDP", "clipping_norm = 0.1, noise_multiplier = 0.1, strategy = 'FedDyn'", ""),
    ],
)
def test_the_server_holds_the_mean_of_what_clients_keep(
    tiny: Make, tmp_path: Path, strategy: str, options: str, compression: str
) -> None:
    config = tiny(
        strategy=strategy,
        strategy_options=options,
        compression=compression,
        compression_ratio=0.05,
        optimizer="sgd",
        optimizer_options="momentum = 0",
        examples_per_client=16,
        clients_per_round=3,
        num_server_rounds=5,
    )
    run_in_process(config)
    plan = make_plan(config)
    checkpoint = CheckpointFolder(tmp_path / "run" / "checkpoints").load_newest(dict(plan.model.state_dict()))
    assert checkpoint is not None
    restore(plan.strategy, checkpoint.strategy, checkpoint.strategy_arrays)
    inner: Any = getattr(plan.strategy, "strategy", plan.strategy)
    states = ClientStates(tmp_path / "run" / "clients")
    kept = [states.load(client, before=6).shared.rule for client in range(4)]
    for name, held in getattr(inner, HELD[strategy]).items():
        key = f"{HELD[strategy]}/{name}"
        mean = sum(each[key].numpy().astype(np.float64) for each in kept if key in each) / 4
        scale = max(float(np.abs(mean).max()), 1e-3)
        assert np.abs(held - mean).max() < 1e-5 * scale, name
    assert json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["status"] == "completed"
