"""Runs of a sweep are forked from one warm process: each dies alone, and none is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from command_line import hear_ctrl_c

from simulations.experiments import processes as module
from simulations.experiments.processes import Forked, processes
from simulations.runs.reader import read_run
from simulations.runtime.in_process import run_in_process
from simulations.scenario import load_scenario

pytestmark = pytest.mark.slow

needs_forks = pytest.mark.skipif(not module.FORKS, reason="no process is forked here")
SCENARIO = (
    'dataset = "digits"\nnum-clients = 3\nnum-server-rounds = 3\npartitioner = "iid"\nlocal-epochs = 1\n'
)
CALLBACKS = """
import atexit, os, signal, time
from server.callbacks.callback import Callback

class Fate(Callback):
    essential = True

    def on_run_start(self, run):
        self.seed = int(run.folder.path.name.split('-')[1])
        self.file = open(run.folder.path / "notes.txt", "w", encoding="utf-8")  # which nobody closes
        self.file.write("what it noted")
        atexit.register((run.folder.path / "ended.txt").write_text, "at the end", "utf-8")

    def on_round_end(self, record):
        if record.server_round == 2:
            if self.seed == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.seed == 2:
                raise LookupError("no such thing")
            if self.seed == 3:
                os._exit(3)

class Slow(Callback):
    def on_round_end(self, record):
        if record.server_round > 1 and not os.path.exists("quick"):
            time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A user's folder, with a scenario and callbacks; afterwards no process works there."""
    (tmp_path / "toy.toml").write_text(SCENARIO, encoding="utf-8")
    (tmp_path / "mine.py").write_text(CALLBACKS, encoding="utf-8")
    yield tmp_path
    assert not _working_in(tmp_path)


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "simulations.cli", *words]


def sweep(home: Path, callback: str, seeds: str) -> list[str]:
    where = ["--seeds", seeds, "--folder", str(home / "runs"), "--workers", "2"]
    return command("sweep", "toy.toml", "-c", f"callbacks=mine:{callback}", *where)


def folder_of(home: Path, seed: int) -> Path:
    (found,) = (home / "runs").glob(f"seed-{seed}-*")
    return found


def test_a_run_that_dies_is_the_only_one_that_fails(home: Path) -> None:
    words = sweep(home, "Fate", "1,2,3,4,5")
    done = subprocess.run(words, cwd=home, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    killed, raised, left = (
        (folder_of(home, seed) / "output.log").read_text(encoding="utf-8").splitlines() for seed in (1, 2, 3)
    )
    assert killed[-1].startswith("failed: its process was killed by SIGKILL (not for")
    assert "failed: LookupError: no such thing" in raised
    assert not any("Traceback" in line for line in left)
    assert [f"seed={seed} failed: " in done.stdout for seed in range(1, 6)] == [True] * 3 + [False] * 2

    for seed in (4, 5):
        folder = folder_of(home, seed)
        assert (folder / "notes.txt").read_text(encoding="utf-8") == "what it noted"
        assert (folder / "ended.txt").read_text(encoding="utf-8") == "at the end"
    run_in_process({**load_scenario(home / "toy.toml", ["seed=5"]), "run-dir": str(home / "alone")})
    assert hash_of(folder_of(home, 5)) == hash_of(home / "alone")


def hash_of(folder: Path) -> str:
    result = read_run(folder).result
    assert result is not None
    assert result.weights_sha256
    return result.weights_sha256


def test_no_process_is_left_and_the_same_command_goes_on(home: Path) -> None:
    """Whatever signal ends it, one after the other."""
    words = sweep(home, "Slow", "1,2,3")
    for begun, end in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)):
        with subprocess.Popen(
            words,
            cwd=home,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
            preexec_fn=hear_ctrl_c,
        ) as cut:
            _wait_for(lambda begun=begun: _in_logs(home, "Resuming after round 1") == 2 * begun)
            _wait_for(lambda: len(_rounds(home)) == 2 and min(_rounds(home)) >= 3)
            assert len(_working_in(home)) >= 3, end  # the sweep's own and two runs at least
            cut.send_signal(end)
        if end == signal.SIGINT:
            assert cut.returncode == 130
        _wait_for(lambda: not _working_in(home))

    (home / "quick").touch()
    done = subprocess.run(words, cwd=home, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [read_run(path.parent) for path in (home / "runs").glob("*/result.json")]
    assert [run.status for run in runs] == ["completed"] * 3
    assert _in_logs(home, "[ROUND 1/3]") == 3  # none of those begun has started over


@needs_forks
def test_runs_are_forked_by_one_thread_and_outlive_the_death_of_their_server(home: Path) -> None:
    words = sweep(home, "Slow", "1,2,3")
    with subprocess.Popen(words, cwd=home, stdout=subprocess.PIPE, encoding="utf-8") as swept:
        _wait_for(lambda: len(_rounds(home)) == 2 and min(_rounds(home)) >= 3)
        (server,) = (
            process
            for process in psutil.Process(swept.pid).children()
            if "simulations.experiments.fork_server" in process.cmdline()
        )
        assert server.num_threads() == 1
        first, second = server.children()
        assert {os.getsid(first.pid), os.getsid(second.pid)} == {first.pid, second.pid}
        (home / "quick").touch()  # for the third run
        server.kill()
        output, _ = swept.communicate()
    assert swept.returncode == 1
    reason = "failed: the process from which runs are forked was killed by SIGKILL"
    assert output.count(f"seed=1 failed: {reason}") == output.count(f"seed=2 failed: {reason}") == 1
    assert "seed=3: final accuracy" in output


@needs_forks
def test_what_is_imported_before_a_fork_starts_no_thread_and_no_gpu() -> None:
    code = """
import os, sys, torch
from simulations.experiments.fork_server import OF_TASK, PRELOADED, prepare
modules = [name for names in OF_TASK.values() for name in names]
prepare(modules)
missing = {*modules, *PRELOADED} - sys.modules.keys()
print(len(os.listdir("/proc/self/task")), missing, torch.cuda.is_initialized(), torch.get_num_threads())
"""
    one = dict.fromkeys(module.POOLS, "1")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, **one},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stdout == "1 set() False 1\n", done.stdout + done.stderr


@needs_forks
def test_a_script_without_a_guard_sweeps(home: Path) -> None:
    """As a notebook does: its own module is not imported by a run's process."""
    script = home / "script.py"
    script.write_text(
        "import polyfed\n"
        "swept = polyfed.sweep('toy.toml', seeds=[1], folder='runs', progress=False, num_server_rounds=1)\n"
        "print(swept.failures)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, script], cwd=home, capture_output=True, encoding="utf-8", check=False
    )
    assert done.stdout == "()\n", done.stdout + done.stderr


@needs_forks
def test_random_numbers_that_nobody_seeds_differ(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "drawing.py").write_text(
        "import random\nimport numpy, torch\n"
        "print(random.random(), numpy.random.random(), torch.get_num_threads())\n"
        "class Draws: pass\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(home)
    words = ["run", "toy.toml", "--in-process", "-c", "callbacks=drawing:Draws", "--run-dir"]
    logs = [home / "first.log", home / "second.log"]
    with processes() as ours:
        assert isinstance(ours, Forked)
        started = [ours.start([*words, str(log.with_suffix(""))], log) for log in logs]
        while any(process.returncode is None for process in started):
            ours.wait(1)
    first, second = (log.read_text(encoding="utf-8").split()[:3] for log in logs)
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert first[2] == second[2] == "1"


def _rounds(home: Path) -> list[int]:
    """Return how many lines the metrics of each run have."""
    return [len(path.read_bytes().splitlines()) for path in (home / "runs").glob("*/metrics.jsonl")]


def _in_logs(home: Path, said: str) -> int:
    """Return how often the logs of all runs say something."""
    logs = (path.read_text(encoding="utf-8") for path in (home / "runs").glob("*/run.log"))
    return sum(log.count(said) for log in logs)


def _working_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
