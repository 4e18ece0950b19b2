"""Clients that attack do what is said of them, and robust strategies withstand it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from requests_to_clients import request_of
from rounding import distance
from safetensors.torch import load_file
from torch import Tensor

from clients.attacks import poison, tamper
from clients.worker import load_worker
from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.data.attackers import attackers
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


def finish(config: dict[str, Value], num_nodes: int = 1) -> dict[str, Any]:
    run_in_process(config, num_nodes)
    result: dict[str, Any] = json.loads(
        (Path(str(config["run-dir"])) / "result.json").read_text(encoding="utf-8")
    )
    return result


def test_attackers_follow_from_the_seed() -> None:
    config = TaskConfig(num_clients=10, attack="sign-flip", attack_fraction=0.3)
    assert len(attackers(config)) == 3
    assert attackers(config) == attackers(config)
    others = {attackers(TaskConfig(num_clients=10, attack="sign-flip", seed=seed)) for seed in range(5)}
    assert len(others) > 1
    assert attackers(TaskConfig(attack_fraction=1.0)) == ()


@pytest.mark.parametrize(
    ("attack", "scale", "expected"), [("sign-flip", 1.0, [-1.0, 5.0]), ("sign-flip", 3.0, [-5.0, 9.0])]
)
def test_a_turned_update_by_hand(attack: str, scale: float, expected: list[float]) -> None:
    config = TaskConfig(dataset="digits", attack=attack, attack_fraction=1.0, attack_scale=scale)
    worker = load_worker(config, "")
    sent = {name: torch.zeros_like(worker.state[name]) for name in worker.federated.all}
    sent["classifier.2.bias"][:2] = torch.tensor([1.0, 3.0])
    state = {name: tensor.clone() for name, tensor in sent.items()}
    state["classifier.2.bias"][:2] = torch.tensor([3.0, 1.0])
    assert tamper(worker, request_of(sent), state)["classifier.2.bias"][:2].tolist() == expected


def test_noise_has_its_standard_deviation_and_its_seed() -> None:
    config = TaskConfig(dataset="digits", attack="gaussian", attack_fraction=1.0, attack_scale=2.0)
    worker = load_worker(config, "")
    sent = {name: torch.ones_like(worker.state[name]) for name in worker.federated.all}
    first, again, other = (
        tamper(worker, request_of(sent, server_round=number), sent) for number in (1, 1, 2)
    )
    weight = first["classifier.0.weight"]
    assert float(weight.std()) == pytest.approx(2.0, rel=0.02)
    assert float(weight.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(weight, again["classifier.0.weight"])
    assert not torch.equal(weight, other["classifier.0.weight"])


def test_labels_are_turned_for_attackers_alone() -> None:
    config = TaskConfig(dataset="digits", num_clients=4, attack="label-flip", attack_fraction=0.25)
    worker = load_worker(config, "")
    (attacker,) = attackers(config)
    for client in range(4):
        rows, _ = worker.examples(client)
        label = poison(worker, client, rows)["label"]
        expected: Tensor = 9 - rows["label"] if client == attacker else rows["label"]
        assert torch.equal(label, expected)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["label-flip", "sign-flip", "gaussian"])
def test_attacks_are_the_same_on_every_node(tiny: Make, tmp_path: Path, attack: str) -> None:
    given = {"num_clients": 10, "attack": attack, "attack_scale": 0.5}
    hashes = {
        finish(tiny(run_dir=str(tmp_path / str(num_nodes)), **given), num_nodes)["weights_sha256"]
        for num_nodes in (1, 3)
    }
    honest = finish(tiny(run_dir=str(tmp_path / "honest"), num_clients=10))
    assert len(hashes) == 1
    assert honest["weights_sha256"] not in hashes


@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("attack", ["label-flip", "sign-flip", "gaussian"])
def test_attacks_are_the_same_in_every_engine(tiny: Make, tmp_path: Path, attack: str) -> None:
    for engine in ("loop", "stacked"):
        config = tiny(num_clients=10, attack=attack, attack_scale=0.5, engine=engine)
        finish({**config, "run-dir": str(tmp_path / engine)})
    loop, stacked = (
        load_file(tmp_path / engine / "models" / "last.safetensors") for engine in ("loop", "stacked")
    )
    assert distance(loop, stacked) < 1e-12  # in float64: see test_stacked.py


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"attack": "flip"}, "unknown attack 'flip'"),
        ({"attack": "sign-flip", "attack_fraction": 0.1}, "0.1 of 4 clients is nobody: raise it"),
        ({"attack": "sign-flip", "attack_fraction": 1.5}, r"attack-fraction must be in \[0, 1\], got 1.5"),
        (
            {"attack": "label-flip", "task": "lstm-forecast", "dataset": "sine", "attack_fraction": 0.5},
            "attack label-flip needs labels, and dataset 'sine' has none",
        ),
        (
            {"attack": "label-flip", "task": "vae", "attack_fraction": 0.5},
            "attack label-flip turns labels, and task vae does not learn from those of dataset 'digits'",
        ),
    ],
)
def test_attacks_that_make_no_sense_are_refused(
    tiny: Make, overrides: dict[str, Value], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_in_process(tiny(**overrides))


@pytest.mark.slow
def test_robust_strategies_withstand_turned_signs(tiny: Make, tmp_path: Path) -> None:
    """A fifth of the clients send four times their update back: FedAvg collapses, robust ones stay."""
    shared = {
        "num_clients": 15,
        "partitioner": "iid",
        "num_server_rounds": 12,
        "local_epochs": 4,
        "batch_size": 16,
        "engine": "stacked",
        "evaluate_every": 0,
        "checkpoint_every": 0,
        "validation_fraction": 0.0,
    }
    attack = {"attack": "sign-flip", "attack_scale": 4.0}
    robust = {
        "Krum": "num_malicious_nodes = 3",
        "Bulyan": "num_malicious_nodes = 3",
        "FedTrimmedAvg": "beta = 0.2",
    }

    def accuracy(strategy: str, options: str, **overrides: Any) -> float:
        folder = tmp_path / f"{strategy}-{bool(overrides)}"
        given = {"strategy": strategy, "strategy_options": options, "run_dir": str(folder)}
        return float(finish(tiny(**shared, **given, **overrides))["final"]["accuracy"])

    clean = accuracy("FedAvg", "")
    attacked = {name: accuracy(name, options, **attack) for name, options in robust.items()}
    collapsed = accuracy("FedAvg", "", **attack)
    # Under AVX2: 0.964, 0.097 and 0.967. With such room it is not marked rounding, for it takes a minute.
    assert clean > 0.9
    assert collapsed < 0.5
    assert max(attacked.values()) > clean - 0.05
