"""Secure aggregation on real nodes: a SuperLink, three SuperNodes, and one of them that is killed."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import tomli_w
from flower_processes import environment, flwr_run, free_port, started, wait_for_port

from models.core.config import Value
from simulations.runtime.in_process import run_in_process
from simulations.runtime.staging import stage
from simulations.scenario import defaults

SCENARIO: dict[str, Value] = {
    "dataset": "digits",
    "num-clients": 4,
    "num-server-rounds": 3,
    "keep-optimizer": True,
    "node-silence": 25.0,
}


@pytest.mark.bar
def test_real_nodes_mask_and_one_may_go(tmp_path: Path) -> None:
    """Nodes with a resident worker and without, in rounds with all of them, are the simulation's hash.

    From when the third is killed, its client is missing and the others' sums open.
    """
    run_in_process({**defaults(), **SCENARIO, "num-server-rounds": 1, "run-dir": str(tmp_path / "alone")})
    home, port, log = tmp_path / "home", free_port(), tmp_path / "superlink.log"
    env, run_dir, scenario = environment(home), tmp_path / "run", tmp_path / "scenario.toml"
    asked = {**SCENARIO, "secure-aggregation": True, "run-dir": str(run_dir)}
    scenario.write_text(tomli_w.dumps(asked), encoding="utf-8")
    metrics = run_dir / "metrics.jsonl"
    with ExitStack() as servers, ThreadPoolExecutor() as pool:
        superlink = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
        superlink += ["--disable-runtime-dependency-installation"]
        servers.enter_context(started(superlink, tmp_path / "link", env, log))
        wait_for_port(port, log)
        last = ExitStack()
        servers.enter_context(last)
        for node in range(3):
            given = f'partition-id={node} num-partitions=3 state-path="{tmp_path / f"state-{node}"}"'
            given += " resident=true" * (node == 1) + " secure-nodes=2"
            supernode = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
            supernode += ["--host", "127.0.0.1", "--port", str(free_port()), "--node-config", given]
            place, said = tmp_path / f"node-{node}", tmp_path / f"node-{node}.log"
            (last if node == 2 else servers).enter_context(started(supernode, place, env, said))
        running = pool.submit(
            flwr_run, stage(tmp_path / "app"), env, home, port, "--run-config", str(scenario)
        )
        while (not running.done() and not metrics.exists()) or len(_rows(metrics)) < 2:
            time.sleep(0.1)
            assert not running.done(), running.result()
        last.close()
        output = running.result()
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    assert result["status"] == "completed", output
    rows = _rows(metrics)
    whole, short = (row["clients"] for row in (rows[1], rows[-1]))
    assert (whole, short) == ([0, 1, 2, 3], [0, 1, 3])
    (before,) = (row for row in _rows(tmp_path / "alone" / "metrics.jsonl") if row["server_round"] == 1)
    assert rows[1]["central"] == before["central"]
    assert all((tmp_path / f"state-{node}").rglob("opened-sums-*.json") for node in range(3))


def _rows(metrics: Path) -> list[dict[str, object]]:
    if not metrics.exists():
        return []
    return [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
