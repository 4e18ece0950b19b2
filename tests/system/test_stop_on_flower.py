"""A run that `flwr stop` ends in its middle: what it leaves behind, and whether it can be gone on with."""

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w
from flower_processes import BIN, environment, flwr_run, free_port, started, wait_for_port

from models.core.config import Value
from simulations.runtime.in_process import run_in_process
from simulations.runtime.staging import stage
from simulations.scenario import defaults

ONE_NODE = "num-supernodes=1 client-resources-num-cpus=1 init-args-num-cpus=1"
# More rounds than any machine does before it is stopped; momentum is kept, so client state takes part.
SCENARIO: dict[str, Value] = {
    "dataset": "digits",
    "num-clients": 4,
    "num-server-rounds": 10_000,
    "keep-optimizer": True,
    "optimizer-options": "momentum = 0.9",
}


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


def processes_of(home: Path) -> set[int]:
    """Return the processes that the Flower in this folder has started, Ray's daemons among them."""
    found = psutil.process_iter(["environ", "pid"])
    return {each.pid for each in found if (each.info["environ"] or {}).get("FLWR_HOME") == str(home)}


def rounds_in(run_dir: Path) -> int:
    metrics = run_dir / "metrics.jsonl"
    return len(metrics.read_text(encoding="utf-8").splitlines()) - 1 if metrics.exists() else -1


def result_in(run_dir: Path) -> dict[str, Any]:
    return dict(json.loads((run_dir / "result.json").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_a_run_that_flower_stops_leaves_no_process_and_goes_on_to_the_hash_of_a_whole_one(
    tmp_path: Path,
) -> None:
    home, port, log = tmp_path / "home", free_port(), tmp_path / "superlink.log"
    env, run_dir = environment(home), tmp_path / "run"
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(tomli_w.dumps({**SCENARIO, "run-dir": str(run_dir)}), encoding="utf-8")
    arguments = ("--run-config", str(scenario), "--federation-config", ONE_NODE)

    def flwr(*words: str) -> str:
        command = [str(BIN / "flwr"), *words, "--format", "json"]
        done = subprocess.run(command, env=env, capture_output=True, timeout=120, check=True)
        return done.stdout.decode()

    superlink = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    app = stage(tmp_path / "app")
    with started(superlink, tmp_path / "empty", env, log), ThreadPoolExecutor() as pool:
        wait_for_port(port, log)
        stream = pool.submit(flwr_run, app, env, home, port, *arguments)
        try:
            wait_for(lambda: rounds_in(run_dir) >= 3 or stream.done(), 240)
        finally:  # else the run would go on until the stream's own time is over
            (run,) = json.loads(flwr("list", "here"))["runs"]
            flwr("stop", run["run-id"], "here")
        stream.result()
        # The SuperLink and what it keeps for the next run stay; Ray and the run's own processes end.
        wait_for(lambda: len(processes_of(home)) <= 2, 60)
        (run,) = json.loads(flwr("list", "here"))["runs"]
        assert run["status"] == "finished:stopped"
    wait_for(lambda: not processes_of(home), 30)

    result = result_in(run_dir)
    assert (result["status"], result["reason"]) == ("unfinished", "it is under way, or was killed")
    assert not (run_dir / "errors.log").exists()
    total = rounds_in(run_dir) + 2
    whole = {**defaults(), **SCENARIO, "num-server-rounds": total, "run-dir": str(tmp_path / "whole")}
    run_in_process(whole)
    run_in_process({**whole, "run-dir": str(run_dir), "resume": True})
    gone_on, expected = result_in(run_dir), result_in(tmp_path / "whole")
    assert (gone_on["status"], gone_on["server_round"]) == ("completed", total)
    assert gone_on["weights_sha256"] == expected["weights_sha256"]
