"""Real nodes and a real SuperLink that are killed in the middle of a run."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w
from flower_processes import BIN, environment, flwr_run, free_port, wait_for_port
from safetensors.torch import load_file

from models.core.config import Value
from models.state import weights_sha256
from server.checkpoint import CheckpointFolder
from simulations.runtime.in_process import run_in_process
from simulations.runtime.staging import stage
from simulations.scenario import defaults

SCENARIO: dict[str, Value] = {
    "dataset": "digits",
    "num-clients": 4,
    "num-server-rounds": 2,
    "keep-optimizer": True,
    "optimizer-options": "momentum = 0.9",
    "evaluate-every": 0,
    "keep-checkpoints": 9,
    "node-silence": 25.0,
    "node-timeout": 60.0,
}
PLACES = ("partition-id=0 num-partitions=2", "partition-id=1 num-partitions=2")


class Programs:
    """Flower's programs for real nodes on the loopback; those that are left at the end are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.home = folder, free_port(), folder / "home"
        self.env = environment(self.home) | {"HOME": str(folder)}
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a program in an empty folder."""
        (self.folder / "empty").mkdir(exist_ok=True)
        with self.log(name).open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [str(BIN / command[0]), "--insecure", *command[1:]],
                cwd=self.folder / "empty",
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def superlink(self) -> subprocess.Popen[bytes]:
        """Start the SuperLink, also once more."""
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--database", str(self.folder / "state.db"), "--disable-runtime-dependency-installation"]
        process = self.start("superlink", *command)
        wait_for_port(self.port, self.log("superlink"))
        return process

    def supernode(self, name: str, config: str = "") -> subprocess.Popen[bytes]:
        """Start a SuperNode."""
        command = ["flower-supernode", "--superlink", f"127.0.0.1:{self.port}"]
        command += ["--port", str(free_port())]
        return self.start(name, *command, *(["--node-config", config] if config else []))

    def log(self, name: str) -> Path:
        """Return the log of a program."""
        return self.folder / f"{name}.log"

    def running(self, word: str = "") -> list[psutil.Process]:
        """Return the processes of these programs whose command line has this word."""
        found = psutil.process_iter(["environ", "cmdline", "status"])
        mine = [each for each in found if (each.info["environ"] or {}).get("FLWR_HOME") == str(self.home)]
        return [each for each in mine if word in " ".join(each.info["cmdline"] or [])]

    def close(self) -> None:
        """End what is left, those too whose parents were killed alone."""
        for each in self.running():
            with suppress(psutil.NoSuchProcess):
                each.kill()
        for process in self.started:
            process.wait()


@contextmanager
def programs(folder: Path) -> Iterator[Programs]:
    started = Programs(folder)
    try:
        yield started
    finally:
        started.close()


def wait_for(condition: Callable[[], Any], seconds: float, told: Callable[[], str]) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)
    return found


def rows_in(run_dir: Path) -> list[dict[str, Any]]:
    metrics = run_dir / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    return [json.loads(line) for line in lines]


def result_in(run_dir: Path) -> dict[str, Any]:
    return dict(json.loads((run_dir / "result.json").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_a_superlink_and_a_node_that_are_killed_in_mid_round(tmp_path: Path) -> None:
    run_dir, reference = tmp_path / "run", tmp_path / "reference"
    config = {**SCENARIO, "run-dir": str(run_dir)}
    app, scenario = stage(tmp_path / "app"), tmp_path / "scenario.toml"
    with programs(tmp_path) as flower, ThreadPoolExecutor() as pool:

        def begin(text: str) -> Any:
            scenario.write_text(text, encoding="utf-8")
            arguments = app, flower.env, flower.home, flower.port, "--run-config", str(scenario)
            return pool.submit(flwr_run, *arguments)

        def asked(name: str) -> int:
            """Return how often a node was asked to train."""
            return flower.log(name).read_text(encoding="utf-8").count("Receiving: train message")

        def told() -> str:
            return "\n".join(log.read_text(encoding="utf-8")[-3000:] for log in tmp_path.glob("*.log"))

        superlink = flower.superlink()
        nodes = [flower.supernode(f"node{place}", config) for place, config in enumerate(PLACES)]
        stream = begin(tomli_w.dumps(config))
        run_in_process({**defaults(), **config, "run-dir": str(reference)}, num_nodes=2)
        wait_for(lambda: asked("node0") == 2 or stream.done(), 120, told)
        superlink.kill()  # in round 2
        superlink.wait()
        stream.result()
        assert [row["server_round"] for row in rows_in(run_dir)] == [1]
        wait_for(lambda: not flower.running("flwr-serverapp"), 60, told)
        said = result_in(run_dir)["reason"]  # the latter where Flower gave its process no time to say more
        flowers = "Flower ended it: its SuperLink has gone, or was told to stop it"
        assert said in (flowers, "it is under way, or was killed")

        flower.superlink()
        flower.supernode("stranger")
        text = (run_dir / "config.toml").read_text(encoding="utf-8")
        text = re.sub(r"(?m)^resume = .*", "resume = true", text)  # as docs/nodes.md says
        stream = begin(re.sub(r"(?m)^num-server-rounds = .*", "num-server-rounds = 4", text))
        before = [0]

        def done_twice() -> bool:
            before.append(asked("node1"))
            return len(rows_in(run_dir)) == 2 or stream.done()

        wait_for(done_twice, 120, told)
        wait_for(lambda: asked("node1") > before[-1] or stream.done(), 60, told)
        os.killpg(nodes[1].pid, signal.SIGKILL)  # in round 3
        killed = time.monotonic()
        nodes[1].wait()
        flower.supernode("node1 again", PLACES[1])
        wait_for(lambda: len(rows_in(run_dir)) == 3 or stream.done(), 120, told)
        assert time.monotonic() - killed < 60
        log = stream.result()

    result, rows = result_in(run_dir), rows_in(run_dir)
    assert result["status"] == "completed", log
    # Up to round 2 it is the run that nothing happened to.
    of_round_2 = (load_file(CheckpointFolder(run / "checkpoints").path(2)) for run in (run_dir, reference))
    assert len({weights_sha256(state) for state in of_round_2}) == 1
    assert [row["clients"] for row in rows] == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 2], [0, 1, 2, 3]]
    lost = {each["client"]: each["error"] for each in rows[2]["failures"]}
    assert lost == dict.fromkeys((1, 3), "its node has gone, or was started anew, before it answered")
    (stranger,) = result["refused_nodes"]
    assert "cannot take part: UserError: start this SuperNode with --node-config" in stranger
