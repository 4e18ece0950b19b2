"""A Ray cluster of two nodes: the hash of one machine, and a node that is killed in mid-round."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command_line
import pytest
from ray_nodes import Nodes, two_nodes

from server.run_schema import CLIENTS, METRICS, RESULT, RUN_LOG

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="other systems have one address on their loopback"),
]
CODE = '''
from pathlib import Path

from models import Source
from models.data.images import load_digits
from models.images.cnn import ImageClassification


class Images(ImageClassification):
    """Classifies, by code that a node has not installed."""


def load(config):
    """Read a file that lies in the folder of the command alone."""
    Path("here.txt").read_text(encoding="utf-8")
    return load_digits(config)


DIGITS = Source("images", load)
'''
"""Code, and a dataset of files, that no node has."""
SETTINGS = {
    "task": "users_own_code:Images",
    "dataset": "users_own_code:DIGITS",
    "num-clients": 12,
    "clients-per-round": 8,
    "keep-optimizer": "true",
    "local-epochs": 5,
    "trackers": "''",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the user's code and file."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "users_own_code.py").write_text(CODE, encoding="utf-8")
    (folder / "here.txt").write_text("here\n", encoding="utf-8")
    return folder


def polyfed(folder: Path, *arguments: str, **settings: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-m", "simulations.cli", "run", *arguments]
    for key, value in settings.items():
        command += ["-c", f"{key.replace('_', '-')}={value}"]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )


def ends(running: "subprocess.Popen[str]", code: int = 0) -> str:
    said, _ = running.communicate(timeout=240)
    assert running.returncode == code, said
    return said


def result_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / RESULT).read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def alone(folder: Path) -> str:
    """Return the hash that four rounds have in one process."""
    ends(polyfed(folder, "cnn-digits", "--in-process", "--run-dir", "alone", num_server_rounds=4, **SETTINGS))
    return str(result_of(folder / "alone")["weights_sha256"])


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Give a cluster."""
    with two_nodes() as nodes:
        yield nodes


def test_two_nodes_give_the_hash_of_one_process(folder: Path, alone: str, nodes: Nodes) -> None:
    """Code, data and clients' states go there and back; the run goes on without the cluster, and on it."""
    there = ("--ray-address", nodes.address)
    ends(polyfed(folder, "cnn-digits", *there, "--run-dir", "far", num_server_rounds=2, **SETTINGS))
    log = (folder / "far" / RUN_LOG).read_text(encoding="utf-8")
    assert f"2 workers on 2 nodes of the Ray cluster {nodes.address}" in log
    assert list((folder / "far" / CLIENTS).rglob("round-2.safetensors"))
    ends(polyfed(folder, "--in-process", "--resume", "far", num_server_rounds=3))
    ends(polyfed(folder, *there, "--resume", "far", num_server_rounds=4, cluster_states="shared"))
    assert result_of(folder / "far")["weights_sha256"] == alone
    assert "stays in the run folder" in (folder / "far" / RUN_LOG).read_text(encoding="utf-8")


def test_a_script_beside_the_users_code_runs_it_there(folder: Path, nodes: Nodes) -> None:
    """Ray would have workers import from the script's folder, on a node that has one of that name."""
    script = "import polyfed; polyfed.run('cnn-digits', ray_address={!r}, run_dir='by-script', {})"
    keys = "num_server_rounds=1, task='users_own_code:Images', trackers='', progress=False"
    (folder / "script.py").write_text(script.format(nodes.address, keys), encoding="utf-8")
    subprocess.run([sys.executable, "script.py"], cwd=folder, check=True, timeout=240)
    assert result_of(folder / "by-script")["status"] == "completed"


def test_a_node_that_cannot_read_the_dataset_is_told(folder: Path, nodes: Nodes) -> None:
    there = ("--ray-address", nodes.address, "--run-dir", "blind")
    said = ends(polyfed(folder, "cnn-digits", *there, cluster_data="nodes", **SETTINGS), 1)
    assert "here.txt" in said
    assert "node" in said


def test_an_address_at_which_nobody_listens_is_one_line(tmp_path: Path) -> None:
    where = ("--ray-address", "127.0.0.1:1", "--run-dir", tmp_path / "nobody")
    ended = command_line.polyfed("run", "cnn-digits", *where)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("polyfed: no Ray cluster answers at 127.0.0.1:1")
    assert ended.err.count("\n") == 1


def test_more_workers_than_the_cluster_has_cpus_are_refused(folder: Path, nodes: Nodes) -> None:
    there = ("--ray-address", nodes.address, "--run-dir", "many")
    said = ends(polyfed(folder, "cnn-digits", *there, num_workers=3), 2)
    assert "num-workers must be at most 2, the CPUs of the cluster" in said


def test_a_node_that_is_killed_in_mid_round_changes_no_hash(folder: Path, alone: str, nodes: Nodes) -> None:
    """The last one: nobody after it needs two nodes."""
    there = ("--ray-address", nodes.address, "--run-dir", "killed")
    running = polyfed(folder, "cnn-digits", *there, num_server_rounds=4, **SETTINGS)
    metrics, until = folder / "killed" / METRICS, time.monotonic() + 120
    while not metrics.exists() or metrics.read_text(encoding="utf-8").count("\n") < 2:
        assert time.monotonic() < until
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    nodes.kill_the_other()
    ends(running)
    assert result_of(folder / "killed")["weights_sha256"] == alone
    assert "is replaced" in (folder / "killed" / RUN_LOG).read_text(encoding="utf-8")
