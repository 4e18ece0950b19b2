"""Secure aggregation on real nodes: a SuperLink, a SuperNode with a resident worker and one without."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import tomli_w
from finished import result_of
from flower_processes import environment, flwr_run, free_port, started, wait_for_port

from models.core.config import Value
from simulations.runtime.in_process import run_in_process
from simulations.runtime.staging import stage
from simulations.scenario import defaults

SCENARIO: dict[str, Value] = {
    "dataset": "digits",
    "num-clients": 3,
    "num-server-rounds": 1,
    "node-silence": 200.0,
}


@pytest.mark.bar
def test_real_nodes_end_in_the_weights_of_the_plain_run(tmp_path: Path) -> None:
    """What a node keeps from message to message outlives the process that answers each of them."""
    run_in_process({**defaults(), **SCENARIO, "run-dir": str(tmp_path / "alone")})
    home, port, log = tmp_path / "home", free_port(), tmp_path / "superlink.log"
    env, scenario = environment(home), tmp_path / "scenario.toml"
    asked = {**SCENARIO, "secure-aggregation": True, "run-dir": str(tmp_path / "run")}
    scenario.write_text(tomli_w.dumps(asked), encoding="utf-8")
    with ExitStack() as servers:
        superlink = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
        superlink += ["--disable-runtime-dependency-installation"]
        servers.enter_context(started(superlink, tmp_path / "link", env, log))
        wait_for_port(port, log)
        for node in range(2):
            given = f'partition-id={node} num-partitions=2 state-path="{tmp_path / f"state-{node}"}"'
            given += " secure-nodes=2" + " resident=true" * node
            supernode = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
            supernode += ["--host", "127.0.0.1", "--port", str(free_port()), "--node-config", given]
            place, said = tmp_path / f"node-{node}", tmp_path / f"node-{node}.log"
            servers.enter_context(started(supernode, place, env, said))
        output = flwr_run(stage(tmp_path / "app"), env, home, port, "--run-config", str(scenario))
    result = result_of(tmp_path / "run")
    assert result["status"] == "completed", output
    assert result["weights_sha256"] == result_of(tmp_path / "alone")["weights_sha256"]
    for node in range(2):
        (note,) = (tmp_path / f"state-{node}").rglob("opened-sums-*.json")
        assert list(json.loads(note.read_text(encoding="utf-8"))) == ["1 masked", "1"]
