"""Every strategy trains every task, and clients evaluate it; what is added to a registry joins by itself.

The cells of a task share its data and its model, which a worker keeps warm.
"""

import json
import math
from pathlib import Path

import pytest
from required_options import REQUIRED
from shortened import LIKE_OTHERS, toy

from models.core import probe
from models.core.config import Value
from models.registry import TASKS
from simulations.runtime.in_process import run_in_process
from strategies.registry import STRATEGIES

TOGETHER = {("gan", "QFedAvg"): "train_loss_key = 'generator-loss'"}
"""What a strategy must be told about one task; of two losses, which one is to be fair."""
CLIENTS = 3
"""A round's clients, as many as Bulyan needs at least: 4 f + 3."""
ALL_CLIENTS = {(task, strategy) for task in ("clip", "multimodal") for strategy in ("FedDyn", "Scaffold")}
"""Where not every client trains all parts of the model, these strategies need all clients in every round."""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("task", "task_options"),
    [
        *(pytest.param(task, "", marks=pytest.mark.bar if task in LIKE_OTHERS else ()) for task in TASKS),
        pytest.param("cnn", "norm = 'batch'", id="cnn-with-batch-norm"),
    ],
)
def test_it_trains(
    task: str, task_options: str, strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "DRAWS", 1)  # eight take most of the time of a task with a probe
    if task_options and (strategy == "LocalDP" or strategy.startswith("DifferentialPrivacy")):
        task_options += ", local = ['*running_*']"  # which they refuse to send without noise
    options = ", ".join(filter(None, (REQUIRED.get(strategy), TOGETHER.get((task, strategy)))))
    scenario = toy(task)
    num_clients = int(scenario["num-clients"])
    trained = num_clients if (task, strategy) in ALL_CLIENTS else CLIENTS
    small: dict[str, Value] = {
        "clients-per-round": trained,
        "examples-per-client": 4,
        "local-test-fraction": 0.25,
        "fraction-evaluate": CLIENTS / num_clients,
        "run-dir": str(tmp_path / "run"),
        "trackers": "",
        "strategy": strategy,
        "strategy-options": options,
        **({"task-options": task_options} if task_options else {}),
    }
    run_in_process(scenario | small)
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["server_round"]) == ("completed", 2)
    assert all(math.isfinite(value) for value in result["final"].values())
    rounds = [
        json.loads(line)
        for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    asked = 1 if strategy == "LocalOnly" else trained
    assert [(len(row["clients"]), row["failures"]) for row in rounds] == [(asked, [])] * 2
    for row in rounds:
        assert len(row["by_client"]["client"]) == CLIENTS
        assert row["evaluate"]
        assert all(math.isfinite(value) for value in row["evaluate"].values())
