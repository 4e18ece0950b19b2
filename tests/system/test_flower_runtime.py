"""run_on_flower with a tiny app; the tests marked slow start a real SuperLink and a real Ray."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import hear_ctrl_c
from flwr.proto.control_pb2 import ListRunsRequest, StopRunRequest
from flwr.supercore.control import ControlHttpClient
from places import ROOT

import simulations.runtime.flower
from simulations.config import ResolvedSimulation
from simulations.runtime import reaper
from simulations.runtime.control import Control
from simulations.runtime.flower import FlowerOutcome, error_line, run_on_flower

TWO_WORKERS = ResolvedSimulation(num_workers=2, num_nodes=3, client_gpus=0.0)

PYPROJECT = """
[project]
name = "tiny"
version = "0.1.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "polyfed"
[tool.flwr.app.components]
serverapp = "tiny.apps:server"
clientapp = "tiny.apps:client"
[tool.flwr.app.config]
run-dir = ""
threads = 1
then = "return"
"""

# The server asks every node who it is, notes who of the run listens where, and then does as it is told.
APPS = """
import json, os, time
from pathlib import Path
import psutil
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server = ServerApp()
client = ClientApp()

def mine(process):
    try:
        return process.environ().get("POLYFED_RUN_FOLDER") == os.environ["POLYFED_RUN_FOLDER"]
    except psutil.Error:
        return False

@client.query()
def query(message, context):
    facts = {"file": __file__, "pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}
    facts |= {"partition": context.node_config["partition-id"]}
    time.sleep(0.5)
    return Message(RecordDict({"facts": ConfigRecord(facts)}), reply_to=message)

@server.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < 3:
        time.sleep(0.05)
    asked = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    clients = [dict(reply.content["facts"]) for reply in grid.send_and_receive(asked)]
    connections = [c for p in psutil.process_iter() if mine(p) for c in p.net_connections()]
    addresses = sorted({c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN})
    facts = {"file": __file__, "clients": clients, "addresses": addresses}
    Path(context.run_config["run-dir"], "facts.json").write_text(json.dumps(facts))
    if context.run_config["then"] == "raise":
        raise ValueError("the round went wrong")
    if context.run_config["then"] == "sleep":
        time.sleep(120)
"""


def make_app(folder: Path, apps: str = APPS) -> Path:
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "__init__.py").touch()
    (folder / "tiny" / "apps.py").write_text(apps, encoding="utf-8")
    (folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    return folder


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


@pytest.fixture
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR of the test's own, short enough for the sockets that Ray makes in it."""
    with tempfile.TemporaryDirectory(prefix="pf", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)  # for a process that the test starts
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two runs at once, one that goes well and one that raises, in an environment full of traps."""
    folder = tmp_path_factory.mktemp("pair")
    app = make_app(folder / "app")
    decoy = make_app(folder / "decoy", "raise SystemExit('the decoy was imported')")
    ticks: list[float] = []

    def run(name: str, then: str) -> FlowerOutcome:
        config = {"run-dir": str(folder / name), "threads": 2, "then": then}
        return run_on_flower(config, TWO_WORKERS, on_tick=lambda: ticks.append(time.monotonic()), app=app)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setenv("PYTHONPATH", str(decoy))
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        patch.setenv("http_proxy", "http://127.0.0.1:1")
        patch.delenv("no_proxy", raising=False)
        patch.chdir(decoy)
        well, badly = pool.submit(run, "well", "return"), pool.submit(run, "badly", "raise")
        return SimpleNamespace(folder=folder, well=well.result(), badly=badly.result(), ticks=ticks)


@pytest.mark.slow
def test_a_run_ends_completed(pair):
    assert (pair.well.status, pair.well.error) == ("completed", "")
    assert len(pair.ticks) > 20
    assert "Starting Flower Simulation" in (pair.folder / "well" / "flower.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_server_that_raises_ends_failed_with_its_error(pair):
    assert (pair.badly.status, pair.badly.error) == ("failed", "ValueError: the round went wrong")


@pytest.mark.slow
def test_server_and_workers_run_the_given_app_with_the_given_threads(pair):
    facts = json.loads((pair.folder / "well" / "facts.json").read_text(encoding="utf-8"))
    clients = facts["clients"]
    assert {client["file"] for client in clients} == {facts["file"]}
    assert sorted(client["partition"] for client in clients) == [0, 1, 2]
    assert len({client["pid"] for client in clients}) == TWO_WORKERS.num_workers
    assert {client["threads"] for client in clients} == {"2"}


@pytest.mark.slow
def test_two_runs_at_once_share_nothing(pair):
    well, badly = (
        json.loads((pair.folder / name / "facts.json").read_text(encoding="utf-8"))
        for name in ("well", "badly")
    )
    assert well["file"] != badly["file"]
    assert not {c["pid"] for c in well["clients"]} & {c["pid"] for c in badly["clients"]}


@pytest.mark.slow
def test_everything_listens_on_the_loopback_alone(pair):
    addresses = json.loads((pair.folder / "well" / "facts.json").read_text(encoding="utf-8"))["addresses"]
    assert addresses
    assert set(addresses) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_cut_short_leaves_nothing_behind(sent, tmp_path, short_tmp):
    config = {"run-dir": str(tmp_path / "run"), "threads": 1, "then": "sleep"}
    code = f"""
from pathlib import Path
from simulations.config import ResolvedSimulation
from simulations.runtime.flower import run_on_flower
run_on_flower({config}, {TWO_WORKERS}, app=Path({str(make_app(tmp_path / "app"))!r}))
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, preexec_fn=hear_ctrl_c) as process:
        wait_for(lambda: (tmp_path / "run" / "facts.json").exists() or process.poll() is not None, 90)
        [folder] = short_tmp.glob("polyfed-*")
        assert len(reaper.marked(str(folder))) > 5
        process.send_signal(sent)
        assert process.wait(30) == -sent
        if sent == signal.SIGINT:  # then the run itself has waited for the end
            assert not folder.exists()
        wait_for(lambda: not folder.exists() and not reaper.marked(str(folder)), 30)
    assert list(short_tmp.iterdir()) == []


@pytest.mark.slow
def test_a_refused_run_says_why(tmp_path):
    config = {"run-dir": str(tmp_path), "threads": 1, "colour": "red"}
    outcome = run_on_flower(config, TWO_WORKERS, app=make_app(tmp_path / "app"))
    assert (outcome.status, outcome.run_id) == ("failed", None)
    assert outcome.error.startswith("Flower refused the run: ")
    assert "'colour'" in outcome.error


@pytest.mark.slow
def test_a_superlink_that_dies_fails_the_run(tmp_path, short_tmp):
    def kill_it() -> None:
        if (tmp_path / "facts.json").exists():
            [folder] = short_tmp.glob("polyfed-*")
            for process in reaper.marked(str(folder)):
                if "flower-superlink" in " ".join(process.cmdline()):
                    process.kill()

    config = {"run-dir": str(tmp_path), "threads": 1, "then": "sleep"}
    outcome = run_on_flower(config, TWO_WORKERS, on_tick=kill_it, app=make_app(tmp_path / "app"))
    assert outcome.status == "failed"
    assert outcome.run_id is not None
    assert outcome.error.startswith("the SuperLink was killed (SIGKILL)")
    assert outcome.may_go_better
    assert list(short_tmp.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_flower_stops_says_so(tmp_path, short_tmp, monkeypatch):
    controls = []

    class Remembered(Control):
        def __init__(self, client: ControlHttpClient) -> None:
            super().__init__(client)
            controls.append(self)

    def stop_it() -> None:
        if controls and (tmp_path / "facts.json").exists():
            client = controls.pop()._client  # once: Flower refuses to stop a run that has ended
            [run_id] = client.ListRuns(ListRunsRequest()).run_dict
            client.StopRun(StopRunRequest(run_id=run_id))

    monkeypatch.setattr(simulations.runtime.flower, "Control", Remembered)
    config = {"run-dir": str(tmp_path), "threads": 1, "then": "sleep"}
    outcome = run_on_flower(config, TWO_WORKERS, on_tick=stop_it, app=make_app(tmp_path / "app"))
    assert (outcome.status, outcome.may_go_better) == ("stopped", False)
    assert outcome.error == "it was stopped through Flower, as by `flwr stop`"
    assert list(short_tmp.iterdir()) == []


WRAPPED = """\
ERROR :     An exception occured!! boom
Traceback (most recent call last):
  File "app.py", line 1, in main
    raise ValueError("no rows")
ValueError: no rows

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "flwr.py", line 1, in run_api
RuntimeError: Simulation Runtime crashed.
INFO :      bye
"""


@pytest.mark.parametrize(
    ("log", "details", "expected"),
    [
        (WRAPPED, "Simulation failed with exception: Simulation Runtime crashed.", "ValueError: no rows"),
        ("", "Simulation failed with exception: no\nrows", "no rows"),
        (WRAPPED, "Stopped by somebody", "Stopped by somebody"),
    ],
)
def test_the_error_is_the_exception_beneath_flowers_own(log, details, expected):
    assert error_line(log, details) == expected
