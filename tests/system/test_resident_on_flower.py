"""A node with a resident worker gives the hash of one without, also where the worker is killed."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
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

# Momentum is kept, so client state takes part.
SCENARIO: dict[str, Value] = {
    "dataset": "digits",
    "num-clients": 20,
    "clients-per-round": 12,
    "num-server-rounds": 3,
    "keep-optimizer": True,
}


def hash_of(run_dir: Path) -> str:
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    assert result["status"] == "completed", result["reason"]
    return str(result["weights_sha256"])


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[tuple[dict[str, str], Path, int]]:
    """Start a SuperLink and two SuperNodes on the loopback, the second with a resident worker."""
    home, port = tmp_path / "home", free_port()
    env = environment(home)
    log = tmp_path / "superlink.log"
    with ExitStack() as servers:
        superlink = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
        superlink += ["--disable-runtime-dependency-installation"]
        servers.enter_context(started(superlink, tmp_path / "link", env, log))
        wait_for_port(port, log)
        for node in range(2):
            supernode = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
            supernode += ["--host", "127.0.0.1", "--port", str(free_port())]
            state = tmp_path / f"state-{node}"
            config = f'partition-id={node} num-partitions=2 state-path="{state}"' + " resident=true" * node
            supernode += ["--node-config", config]
            servers.enter_context(
                started(supernode, tmp_path / f"node-{node}", env, tmp_path / f"node-{node}.log")
            )
        yield env, home, port


@pytest.mark.slow
def test_a_node_whose_worker_is_killed_gives_the_same_hash(
    tmp_path: Path, deployment: tuple[dict[str, str], Path, int]
) -> None:
    """The second one's worker, which trains in the first round, is killed after it."""
    run_in_process({**defaults(), **SCENARIO, "run-dir": str(tmp_path / "alone")})
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(tomli_w.dumps({**SCENARIO, "run-dir": str(tmp_path / "run")}), encoding="utf-8")
    env, home, port = deployment
    run_dir, log = tmp_path / "run", tmp_path / "node-1.log"
    started_worker = re.compile(r"resident worker has started \(process (\d+)\)")
    arguments = (stage(tmp_path / "app"), env, home, port, "--run-config", str(scenario))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(flwr_run, *arguments)
        while not running.done() and "Sending: train message" not in log.read_text(encoding="utf-8"):
            time.sleep(0.1)
        (worker,) = started_worker.findall(log.read_text(encoding="utf-8"))
        os.kill(int(worker), signal.SIGKILL)
        output = running.result()
    said = log.read_text(encoding="utf-8")
    assert len(started_worker.findall(said)) == 2
    assert "No resident worker" not in said
    assert (run_dir / "result.json").exists(), output
    assert hash_of(run_dir) == hash_of(tmp_path / "alone")
    assert list((tmp_path / "state-0").rglob("*.safetensors")), "the node did not keep its clients' state"
    assert not (run_dir / "clients").exists(), "a node wrote into the server's run folder"
