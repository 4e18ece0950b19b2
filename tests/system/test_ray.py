"""Direct Ray: one hash whoever is dealt what, workers that die, and what is left of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import hear_ctrl_c
from ray_runs import RunOnRay, ray_runs

from models.core.config import Value
from server.run_schema import METRICS, RESULT, RUN_LOG, WORKERS_LOG
from simulations.runtime.in_process import run_in_process
from simulations.runtime.reaper import marked
from simulations.scenario import defaults

SMALL: dict[str, Value] = {
    "dataset": "digits",
    "num-clients": 12,
    "clients-per-round": 8,
    "num-server-rounds": 2,
    "keep-optimizer": True,
    "trackers": "",
}


OnRay = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def running() -> Iterator[RunOnRay]:
    """Give Ray and workers, which all of these runs share."""
    with ray_runs() as run:
        yield run


@pytest.fixture
def on_ray(running: RunOnRay) -> OnRay:
    """Return a function that runs on three workers, more than most machines of tests have CPUs."""

    def run(folder: Path, **settings: Any) -> dict[str, Any]:
        running(config(folder, **settings), 3)
        return result_of(folder)

    return run


def here(folder: Path, **settings: Any) -> dict[str, Any]:
    """Run in this process; return the result."""
    run_in_process(config(folder, **settings))
    return result_of(folder)


def config(folder: Path, **settings: Any) -> dict[str, Value]:
    named = {name.replace("_", "-"): value for name, value in settings.items()}
    return {**defaults(), **SMALL, **named, "run-dir": str(folder)}


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return found


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["FedAvg", "Scaffold", "Krum"])
def test_three_workers_give_the_hash_of_one_process(on_ray: OnRay, tmp_path: Path, strategy: str) -> None:
    """With sums of weights and of what clients reply beside them, and with replies of their own."""
    options = {"Krum": "num_malicious_nodes = 1", "Scaffold": "any_optimizer = true"}.get(strategy, "")
    settings = {"strategy": strategy, "strategy_options": options, "fraction_evaluate": 1.0}
    settings |= {"local_test_fraction": 0.25, "task_options": "norm = 'batch'"}
    alone = here(tmp_path / "here", **settings)
    spread = on_ray(tmp_path / "ray", **settings)
    assert spread["status"] == alone["status"] == "completed"
    assert spread["weights_sha256"] == alone["weights_sha256"]
    for one, other in zip(rounds_of(tmp_path / "ray"), rounds_of(tmp_path / "here"), strict=True):
        for key in ("clients", "train", "evaluate", "central", "by_client", "failures"):
            assert one.get(key) == other.get(key), key


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_asynchronous_rounds_depend_on_no_worker(on_ray: OnRay, tmp_path: Path, engine: str) -> None:
    settings = {"engine": engine, "keep_optimizer": engine == "loop", "num_server_rounds": 4}
    settings |= {"buffer_size": 3, "client_speeds": "seconds = 0.01, slow = 0.25, times = 10"}
    spread, alone = on_ray(tmp_path / "ray", **settings), here(tmp_path / "here", **settings)
    assert spread["weights_sha256"] == alone["weights_sha256"]
    seconds = [row.get("simulated_seconds") for row in rounds_of(tmp_path / "here")]
    assert seconds == [row.get("simulated_seconds") for row in rounds_of(tmp_path / "ray")]


@pytest.mark.slow
def test_stacks_depend_on_no_worker(on_ray: OnRay, tmp_path: Path) -> None:
    """Nor on the runtime: clients are stacked by their numbers."""
    settings = {"engine": "stacked", "keep_optimizer": False, "stack_size": 3}
    spread, alone = on_ray(tmp_path / "ray", **settings), here(tmp_path / "here", **settings)
    assert spread["weights_sha256"] == alone["weights_sha256"]


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_clients_work_again(on_ray: OnRay, tmp_path: Path) -> None:
    """The task kills its process the first time that a client trains in round 2."""
    _, asked = cohorts_of_a_plain_run(tmp_path / "plain")
    once = tmp_path / "killed"
    task = {"task": "ray_tasks:DiesOnce", "task_options": f"place = [2, {asked[3]}], once = '{once}'"}
    died = on_ray(tmp_path / "ray", **task)
    assert once.exists()
    assert died["weights_sha256"] == result_of(tmp_path / "plain")["weights_sha256"]
    assert [row["failures"] for row in rounds_of(tmp_path / "ray")[1:]] == [[], []]
    log = (tmp_path / "ray" / RUN_LOG).read_text(encoding="utf-8")
    assert log.count("is replaced: it died or was killed: ") == 1


@pytest.mark.slow
def test_a_client_that_kills_its_worker_twice_has_failed_alone(on_ray: OnRay, tmp_path: Path) -> None:
    _, asked = cohorts_of_a_plain_run(tmp_path / "plain")
    deadly = asked[3]
    task = {
        "task": "faulty:FaultyCnn",
        "task_options": f"kill_at = [2, {deadly}], unless = '/nowhere/at/all'",
    }
    ended = on_ray(tmp_path / "ray", **task)
    assert ended["status"] == "completed"
    last = rounds_of(tmp_path / "ray")[2]
    assert last["clients"] == [client for client in asked if client != deadly]
    (failure,) = last["failures"]
    assert failure["client"] == deadly
    assert failure["error"].startswith("2 workers died while they worked for it: it died or was killed: ")


def cohorts_of_a_plain_run(folder: Path, **settings: Any) -> list[list[int]]:
    here(folder, **settings)
    return [row["clients"] for row in rounds_of(folder)[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "seconds", "who"),
    [
        ("loop", 4.0, "client {} was not done within 4 s (client-timeout)"),
        pytest.param(
            "stacked",
            1.5,
            "8 clients, {} to {}, were not done within 12 s (8 times client-timeout)",
            marks=pytest.mark.bar,
        ),
    ],
)
def test_a_client_that_hangs_once_works_again_with_the_same_result(
    on_ray: OnRay, tmp_path: Path, engine: str, seconds: float, who: str
) -> None:
    settings = {"engine": engine, "keep_optimizer": engine == "loop"}
    _, asked = cohorts_of_a_plain_run(tmp_path / "plain", **settings)
    once = tmp_path / "hung"
    task = {"task": "ray_tasks:HangsOnce", "task_options": f"place = [2, {asked[3]}], once = '{once}'"}
    hung = on_ray(tmp_path / "ray", **task, **settings, client_timeout=seconds)
    assert once.exists()
    assert hung["weights_sha256"] == result_of(tmp_path / "plain")["weights_sha256"]
    assert [row["failures"] for row in rounds_of(tmp_path / "ray")[1:]] == [[], []]
    log = (tmp_path / "ray" / RUN_LOG).read_text(encoding="utf-8")
    named = [asked[3]] if engine == "loop" else [asked[0], asked[-1]]
    assert log.count(f"is replaced: {who.format(*named)}") == log.count("is replaced") == 1


@pytest.mark.slow
def test_a_client_that_hangs_twice_has_failed_alone(on_ray: OnRay, tmp_path: Path) -> None:
    _, asked = cohorts_of_a_plain_run(tmp_path / "plain")
    task = {"task": "ray_tasks:Hangs", "task_options": f"place = [2, {asked[3]}]"}
    ended = on_ray(tmp_path / "ray", **task, client_timeout=4.0)
    assert ended["status"] == "completed"
    last = rounds_of(tmp_path / "ray")[2]
    (failure,) = last["failures"]
    said = "LateError: not done within 4 s (client-timeout), in 2 tries"
    assert (failure["client"], failure["error"]) == (asked[3], said)
    assert last["clients"] == [client for client in asked if client != asked[3]]


@pytest.mark.slow
@pytest.mark.bar
def test_without_a_limit_of_its_own_a_client_that_hangs_costs_those_of_its_portion_and_behind(
    on_ray: OnRay,
    tmp_path: Path,
) -> None:
    """No alarm reaches it; what its worker had done before, and held, is done again."""
    asked, later = cohorts_of_a_plain_run(tmp_path / "plain")
    task = {"task": "ray_tasks:Hangs", "task_options": f"place = [1, {asked[3]}]"}
    ended = on_ray(tmp_path / "ray", **task, round_timeout=8.0, round_grace=4.0)
    assert ended["status"] == "completed"
    first, second = rounds_of(tmp_path / "ray")[1:]
    assert asked[3] in [each["client"] for each in first["failures"]]
    assert len(first["failures"]) <= 4  # two portions of two
    assert all("within 12 s (round-timeout + round-grace)" in each["error"] for each in first["failures"])
    assert (second["clients"], second["failures"]) == (later, [])


@pytest.mark.slow
def test_what_workers_print_is_kept(on_ray: OnRay, tmp_path: Path) -> None:
    on_ray(tmp_path / "ray", task="ray_tasks:Talks", num_server_rounds=1)
    assert "here I am\n" in (tmp_path / "ray" / WORKERS_LOG).read_text(encoding="utf-8")


@contextmanager
def under_way(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start `polyfed run` with many rounds; give its process once it has trained one."""
    command = [sys.executable, "-m", "simulations.cli", "run", "cnn-digits", "--run-dir", str(folder)]
    command += ["-c", "num-server-rounds=10000", "-c", "trackers="]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=hear_ctrl_c
    )
    try:
        metrics, deadline = folder / METRICS, time.monotonic() + 120
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 1):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def folders_of(process: subprocess.Popen[bytes]) -> list[str]:
    """Return the temporary folder of a run, as its reaper is told it; nothing before there is one."""
    commands = []
    for each in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # it has ended meanwhile
            commands.append(each.cmdline())
    return [command[-1] for command in commands if "reaper.py" in str(command)]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_is_ended(tmp_path: Path, how: signal.Signals) -> None:
    shared = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    with under_way(tmp_path / "run") as process:
        (folder,) = folders_of(process)
        listening = [
            connection.laddr.ip.removeprefix("::ffff:")
            for each in marked(folder)
            for connection in each.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert set(listening) <= {"127.0.0.1", "::1"}
        process.send_signal(how)
        process.wait(30)
    deadline = time.monotonic() + 20
    while (marked(folder) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not marked(folder)
    assert not Path(folder).exists()
    left = set(os.listdir("/dev/shm")) - shared if Path("/dev/shm").is_dir() else set()
    assert not [name for name in left if "plasma" in name or "ray" in name]


def names_of(folder: str) -> list[str]:
    """Return the names of the processes of the run in a temporary folder."""
    names = []
    for each in marked(folder):
        with suppress(psutil.Error):  # it has ended meanwhile
            names.append(each.name())
    return names


@pytest.mark.slow
def test_a_run_that_is_interrupted_while_ray_starts_ends_soon(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "simulations.cli",
        "run",
        "cnn-digits",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=hear_ctrl_c
    )
    try:
        deadline = time.monotonic() + 120
        while not (found := folders_of(process)) or "raylet" not in names_of(found[0]):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130  # and not half a minute
    finally:
        process.kill()
        process.wait()
    assert not marked(found[0])
    assert not Path(found[0]).exists()
