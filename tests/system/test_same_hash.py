"""One hash of the final weights, however the run is executed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.core.config import Value
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


def finish(config: dict[str, Value], num_nodes: int) -> dict[str, Any]:
    run_in_process(config, num_nodes)
    result: dict[str, Any] = json.loads(
        (Path(str(config["run-dir"])) / "result.json").read_text(encoding="utf-8")
    )
    return result


@pytest.mark.parametrize(
    "strategy",
    [
        "FedAvg",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("FedAdam", "FedMedian", "Krum")),
        "FedProx",
    ],
)
def test_hash_does_not_depend_on_who_shares_a_node(tiny: Make, tmp_path: Path, strategy: str) -> None:
    options = {"FedProx": "proximal_mu = 0.1", "Krum": "num_malicious_nodes = 1"}.get(strategy, "")
    hashes = {
        finish(
            tiny(
                num_clients=16,
                clients_per_round=13,
                strategy=strategy,
                strategy_options=options,
                run_dir=str(tmp_path / f"{num_nodes}-nodes"),
            ),
            num_nodes,
        )["weights_sha256"]
        for num_nodes in (1, 2, 5)
    }
    assert len(hashes) == 1


def test_another_seed_is_another_hash(tiny: Make, tmp_path: Path) -> None:
    hashes = [
        finish(tiny(num_server_rounds=1, seed=seed, run_dir=str(tmp_path / str(seed))), 1)["weights_sha256"]
        for seed in (1, 2)
    ]
    assert hashes[0] != hashes[1]


def test_proximal_term_changes_the_result(tiny: Make, tmp_path: Path) -> None:
    hashes = [
        finish(
            tiny(strategy="FedProx", strategy_options=f"proximal_mu = {mu}", run_dir=str(tmp_path / str(mu))),
            1,
        )["weights_sha256"]
        for mu in (0.0, 1.0)
    ]
    plain = finish(tiny(run_dir=str(tmp_path / "fedavg")), 1)["weights_sha256"]
    assert hashes[0] == plain != hashes[1]
