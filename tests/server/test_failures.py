"""What fails is named, and stops no more than it must."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.core.config import Value
from server.errors import RunFailedError
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


def read(config: dict[str, Value]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    folder = Path(str(config["run-dir"]))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return rows, json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian"])
def test_one_client_that_raises_does_not_stop_the_run(
    tiny: Make, caplog: pytest.LogCaptureFixture, strategy: str
) -> None:
    options = "raise_at = [2, 3]"
    config = tiny(task="faulty:FaultyCnn", task_options=options, num_server_rounds=3, strategy=strategy)
    run_in_process(config, num_nodes=2)
    rows, result = read(config)
    assert [row.get("failures", []) for row in rows] == [
        [],
        [],
        [{"client": 3, "error": "ValueError: a bad batch"}],
        [],
    ]
    assert [row.get("clients") for row in rows[1:]] == [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3]]
    assert result["status"] == "completed"
    assert "Round 2: client 3 failed: ValueError: a bad batch" in caplog.text


def test_all_clients_failing_stops_the_run(tiny: Make) -> None:
    config = tiny(task="faulty:FaultyCnn", task_options="raise_at = [0, 0]")
    reason = "all 4 clients of round 1 failed; client 0: ValueError: a bad batch"
    with pytest.raises(RunFailedError, match=reason):
        run_in_process(config)
    rows, result = read(config)
    assert (result["status"], result["reason"]) == ("failed", reason)
    assert len(rows[-1]["failures"]) == 4


def test_a_client_that_diverges_sends_no_update(tiny: Make) -> None:
    config = tiny(learning_rate=1e30, num_server_rounds=1)
    with pytest.raises(RunFailedError, match="all 4 clients"):
        run_in_process(config)
    rows, _ = read(config)
    assert all("FloatingPointError: loss is" in failure["error"] for failure in rows[1]["failures"])
