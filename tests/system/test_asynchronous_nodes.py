"""Asynchronous rounds over a real SuperLink and real SuperNodes, of which one is slow."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tomli_w
from finished import result_of
from flower_processes import flwr_run
from places import SUPPORT
from test_nodes_that_go import PLACES, programs, rows_in, wait_for

from models.core.config import Value
from simulations.runtime.staging import stage


@pytest.mark.bar
def test_a_slow_node_holds_up_nobody(tmp_path: Path) -> None:
    """Client 1 trains on the first model until three more were made; then client 0 waits for it."""
    run_dir = tmp_path / "run"
    config: dict[str, Value] = {
        "dataset": "digits",
        "num-clients": 2,
        "num-server-rounds": 4,
        "buffer-size": 1,
        "task": "waiting:WaitingCnn",
        "task-options": "places = [[1, 1], [4, 0]]",
        "unfit-nodes": "stop",
        "evaluate-every": 0,
        "run-dir": str(run_dir),
    }
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(tomli_w.dumps(config), encoding="utf-8")

    def told() -> str:
        return "\n".join(log.read_text(encoding="utf-8")[-3000:] for log in tmp_path.glob("*.log"))

    with programs(tmp_path) as flower, ThreadPoolExecutor() as pool:
        flower.env["PYTHONPATH"] = str(SUPPORT)
        flower.superlink()
        for place, numbers in enumerate(PLACES):
            flower.supernode(f"node{place}", f'{numbers} resident=true allow-code="waiting"')
        arguments = flower.env, flower.home, flower.port, "--run-config", str(scenario)
        stream = pool.submit(flwr_run, stage(tmp_path / "app"), *arguments)
        wait_for(lambda: len(rows_in(run_dir)) == 3 or stream.done(), 240, told)
        (tmp_path / "1-1").touch()  # in the home folder of these programs
        log = stream.result()

    assert result_of(run_dir)["status"] == "completed", log
    rows = rows_in(run_dir)
    assert [(row["clients"], row["train"]["staleness"]) for row in rows] == [
        ([0], 0.0),
        ([0], 0.0),
        ([0], 0.0),
        ([1], 3.0),
    ]
    assert not any(row["failures"] for row in rows)
