"""A SuperLink behind TLS and three SuperNodes with keys, on the loopback, as docs/deploy.md sets them up."""

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from command_line import polyfed
from finished import finish, result_of
from flower_processes import BIN, free_port
from safetensors.torch import save_file
from shortened import toy

from models.core.config import Value
from models.images.networks import ConvNet
from simulations.runtime.in_process import InProcessGrid, run_server
from simulations.runtime.staging import stage
from simulations.scenario import defaults

pytestmark = pytest.mark.slow
NODES = range(3)


@dataclass(frozen=True)
class Federation:
    """A server and three nodes that `polyfed deploy` has started."""

    folder: Path
    port: int
    """Port of the SuperLink."""

    def let_in(self, node: int, clients: str) -> None:
        """Make a node's key and have the server take it, for these clients."""
        place = self.folder / f"node-{node}"
        done("node-key", place, "--name", f"hospital-{node}")
        (place / "ca.crt").write_bytes((self.folder / "ca" / "ca.crt").read_bytes())
        done("register", self.folder / "server", place / "node.pub", "--clients", clients)

    def start_node(self, node: int, *options: object, partition: int | None = None) -> str:
        """Start a node in the background and return its folder."""
        place, number = str(self.folder / f"node-{node}"), node if partition is None else partition
        numbers = ("--partition-id", number, "--num-partitions", len(NODES), "--port", free_port())
        server = ("--superlink", f"localhost:{self.port}", "--device", "cpu")
        done("node", place, *server, *numbers, "--background", *options)
        return place

    def flwr_run(self, run_config: dict[str, Value]) -> str:
        """Run a scenario through `flwr run` and return the hash of its final weights."""
        run_dir = Path(str(run_config["run-dir"]))
        scenario = run_dir.with_suffix(".toml")
        scenario.write_text(tomli_w.dumps(run_config), encoding="utf-8")
        command = [str(BIN / "flwr"), "run", str(self.folder / "app"), "polyfed", "--stream", "--run-config"]
        ended = subprocess.run(
            [*command, str(scenario)],
            env={**os.environ, "FLWR_HOME": str(self.folder / "server" / "flwr")},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            encoding="utf-8",
        )
        assert (run_dir / "result.json").exists(), ended.stdout + ended.stderr
        result = result_of(run_dir)
        assert result["status"] == "completed", result["reason"]
        return str(result["weights_sha256"])


def done(*words: object) -> str:
    ended = polyfed("deploy", *words)
    assert ended.code == 0, ended.err
    return ended.out


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Set up the server and let three nodes in; end all of them afterwards."""
    folder, port = tmp_path_factory.mktemp("federation"), free_port()
    stage(folder)
    done("ca", folder / "ca")
    done("cert", folder / "ca", folder / "server", "--host", "localhost")
    done("server", folder / "server", "--port", port, "--background")
    try:
        made = Federation(folder, port)
        for node in NODES:
            made.let_in(node, f"{node},{node + 3},{node + 6}")
        yield made
    finally:
        for place in (*sorted(folder.glob("node-*")), folder / "server"):
            if (place / "running.json").exists():
                done("stop", place)


def write_mnist(data_dir: Path, seed: int) -> Path:
    """Write MNIST's raw files with pictures of noise."""
    random, raw = np.random.default_rng(seed), data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, rows in (("train", 24), ("t10k", 10)):
        for kind, shape in (("images-idx3", (rows, 28, 28)), ("labels-idx1", (rows,))):
            values = random.integers(0, 256, shape) if len(shape) > 1 else np.arange(rows) % 10
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (raw / f"{name}-{kind}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())
    return data_dir


def test_nodes_with_data_of_their_own_end_in_the_hash_of_the_simulation(
    federation: Federation, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    save_file(ConvNet(1, 28, 28, 10, "none").state_dict(), tmp_path / "weights.safetensors")
    folders = [write_mnist(tmp_path / f"data-{node}", node) for node in NODES]
    config: dict[str, Value] = {
        "dataset": "mnist",
        "data-dir": str(write_mnist(tmp_path / "data", 7)),
        "num-clients": len(NODES),
        "num-server-rounds": 3,
        "batch-size": 8,
        "keep-optimizer": True,
        "optimizer-options": "momentum = 0.9",
        "init-from": str(tmp_path / "weights.safetensors"),  # no node has the file
        "task-options": "freeze = ['features.0.*']",
    }
    simulated = {**defaults(), **config, "run-dir": str(tmp_path / "simulated")}
    grid = InProcessGrid(simulated, len(NODES))
    for node, context in grid.contexts.items():
        context.node_config["data-path"] = str(folders[node])
    run_server(grid, simulated)
    expected = result_of(tmp_path / "simulated")["weights_sha256"]

    places = [federation.start_node(node, "--data-path", folders[node]) for node in NODES]
    assert federation.flwr_run({**config, "run-dir": str(tmp_path / "deployed")}) == expected
    for place in places:
        assert list((Path(place) / "state").rglob("*.safetensors")), (
            "the node did not keep its clients' state"
        )
        done("stop", place)
    assert not (tmp_path / "deployed" / "clients").exists(), "a node wrote into the server's run folder"


@pytest.mark.bar
@pytest.mark.parametrize("resident", ["false", "true"])
def test_ner_and_dqn_side_by_side_on_nodes_that_came_back(
    federation: Federation, tmp_path: Path, resident: str
) -> None:
    places = [federation.start_node(node, "-c", f"resident={resident}") for node in NODES]
    configs = {
        task: {**toy(task), "num-server-rounds": 1, "clients-per-round": 3, "run-dir": str(tmp_path / task)}
        for task in ("ner", "dqn")
    }
    with ThreadPoolExecutor(2) as both:
        first = both.submit(federation.flwr_run, configs["ner"])
        # Flower unpacks an app in its place: a run that starts meanwhile finds a part of it.
        while not (tmp_path / "ner").exists() and not first.done():
            time.sleep(0.2)
        hashes = {"dqn": both.submit(federation.flwr_run, configs["dqn"]).result(), "ner": first.result()}
    for task, config in configs.items():
        here = finish({**config, "run-dir": str(tmp_path / "here" / task)})
        assert hashes[task] == here["weights_sha256"], task

    said = done("status", federation.folder / "server")
    assert re.search(r"^flower-superlink: up; process \d+, 127\.0\.0\.1:\d+$", said, flags=re.MULTILINE)
    online = [(str(node), "online", f"{node},{node + 3},{node + 6}") for node in NODES]
    assert re.findall(r"hospital-(\d) +(\w+) +[-0-9]+ [:0-9]+ +(\S+)", said) == online
    assert said.count("completed") >= 2
    assert "failed" not in said
    assert "server.crt: 364 days left" in said
    for place in places:
        done("stop", place)


@pytest.mark.bar
def test_nodes_of_another_task_or_with_others_clients_are_left_out_by_name(
    federation: Federation, tmp_path: Path
) -> None:
    """The run goes on; the node that is given a client gets it, although another one claims it first."""
    folders = [write_mnist(tmp_path / f"data-{node}", node) for node in NODES]
    shutil.rmtree(folders[1] / "MNIST")
    (folders[1] / "train.txt").write_text("A text of another task.\n", encoding="utf-8")
    places = [federation.start_node(node, "--data-path", folders[node]) for node in (0, 1, 2)]
    server = federation.folder / "server"
    done("register", server, federation.folder / "node-2" / "node.pub", "--clients", "0-1,7")
    federation.let_in(3, "2")
    places.append(federation.start_node(3, "--data-path", folders[2], partition=2))
    config: dict[str, Value] = {"dataset": "mnist", "data-dir": str(write_mnist(tmp_path / "data", 7))}
    scenario, run_dir = tmp_path / "scenario.toml", tmp_path / "run"
    scenario.write_text(tomli_w.dumps({**config, "num-clients": 3, "num-server-rounds": 1}), encoding="utf-8")
    try:
        done("run", server, scenario, "--run-dir", run_dir)
    finally:
        done("register", server, federation.folder / "node-2" / "node.pub", "--clients", "2,5,8")
        for place in places:
            done("stop", place)
    result = result_of(run_dir)
    assert result["status"] == "completed"
    parts = (re.fullmatch(r"node \d+ \((\S+)\) with (.*)", line) for line in result["refused_nodes"])
    said = {part[1]: part[2] for part in parts if part}
    assert said.keys() == {"hospital-1", "hospital-2"}
    assert re.match("partition-id 1 cannot take part: .*mnist", said["hospital-1"])
    claims = r"it claims client 2, and its key SHA256:\S+ may host 0-1,7 alone"
    assert re.fullmatch(f"partition-id 2 cannot take part: {claims}", said["hospital-2"])
    last = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["clients"] == [0, 2]


def test_a_key_that_is_not_registered_is_refused_by_name(federation: Federation) -> None:
    place = federation.folder / "stranger"
    key = re.findall(r"SHA256:\S+", done("node-key", place))[0].rstrip(",")
    (place / "ca.crt").write_bytes((federation.folder / "ca" / "ca.crt").read_bytes())
    command = [sys.executable, "-m", "simulations.cli", "deploy", "node", str(place), "--refused-for", "0"]
    command += ["--superlink", f"localhost:{federation.port}", "--port", str(free_port())]
    command += ["--partition-id", "0", "--num-partitions", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, encoding="utf-8")
    assert ended.returncode == 1
    assert (
        f"the SuperLink at localhost:{federation.port} refuses the key {key} of {place}/node.key"
        in ended.stderr
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_of_the_machine_starts_nothing(federation: Federation) -> None:
    context = ssl.create_default_context(cafile=str(federation.folder / "ca" / "ca.crt"))

    def answer(path: str) -> int:
        asked = http.client.HTTPSConnection("localhost", federation.port, context=context)
        method = "GET" if path == "/health" else "POST"
        asked.request(method, path, headers={"Content-Type": "application/protobuf"})
        with closing(asked):
            return asked.getresponse().status

    paths = ("control/list-runs", "control/start-run", "control/register-node", "runtime/acquire-task")
    assert answer("/v1/control/list-runs") == 200
    os.seteuid(65534)
    try:
        assert [answer(f"/v1/{path}") for path in paths] == [403] * 4
        assert answer("/health") == 200
        assert answer("/v1/fleet/pull-messages") == 401, "not signed"
    finally:
        os.seteuid(0)


@pytest.mark.bar
def test_nodes_with_other_labels_and_several_clients_end_in_the_hash_of_the_simulation(
    federation: Federation, tmp_path: Path
) -> None:
    hosted = {0: "0, 3", 1: "1", 2: "2"}
    for client, kind in enumerate(("PER", "LOC", "ORG", "PER")):  # the fourth one lives with the first
        folder = tmp_path / f"host-{client % 3}" / f"client-{client}" / "tagged"
        folder.mkdir(parents=True)
        for half in ("train", "test"):
            (folder / f"{half}.txt").write_text(f"Ann{client} B-{kind}\nsat O\n\n" * 6, encoding="utf-8")
    config: dict[str, Value] = {
        "task": "ner",  # from scratch: its tokens are learned from the server's sentences
        "dataset": "conll:tagged",
        "data-dir": str(tmp_path / "host-0" / "client-0"),
        "num-clients": 4,
        "num-server-rounds": 2,
        "partitioner": "iid",
        "batch-size": 4,
    }
    simulated = {**defaults(), **config, "run-dir": str(tmp_path / "simulated")}
    grid = InProcessGrid(simulated, len(NODES))
    for node, context in grid.contexts.items():
        context.node_config |= {"data-path": str(tmp_path / f"host-{node}"), "clients": hosted[node]}
    run_server(grid, simulated)
    expected = result_of(tmp_path / "simulated")["weights_sha256"]

    for node in NODES:
        if (federation.folder / f"node-{node}" / "running.json").exists():  # another test's
            done("stop", federation.folder / f"node-{node}")
        options = ("--data-path", tmp_path / f"host-{node}", "-c", f"clients={hosted[node]}")
        federation.start_node(node, *options, "-c", "resident=true")
    assert federation.flwr_run({**config, "run-dir": str(tmp_path / "deployed")}) == expected
    agreed = json.loads((tmp_path / "deployed" / "labels.json").read_text(encoding="utf-8"))
    assert agreed["labels"] == ["LOC", "ORG", "PER"]
    lines = (tmp_path / "deployed" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["clients"] for row in rows[1:]] == [[0, 1, 2, 3]] * 2
    assert rows[1]["bytes"]["left"]["descriptions"] > 0
    assert rows[2]["bytes"]["left"]["updates"] == rows[2]["bytes"]["up"] > 0
    for node in NODES:
        done("stop", federation.folder / f"node-{node}")
