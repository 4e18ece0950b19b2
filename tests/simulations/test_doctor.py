"""`polyfed doctor`, on given numbers and on this machine."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import polyfed
from packaging.requirements import Requirement

from models.core.errors import UserError
from server.errors import RunFailedError
from simulations.doctor import scenario
from simulations.doctor.finding import Finding, in_bytes
from simulations.doctor.gpus import Gpu, Graphics, gpu_findings
from simulations.doctor.memory import Memory, _limits, cpus, memory_finding, shared_memory
from simulations.doctor.one_client import Cost, measure
from simulations.doctor.packages import against_lock, against_project, with_extras
from simulations.doctor.places import PORTS, disk, flower_home, loopback, ports
from simulations.doctor.proposal import CONTEXT, Proposal, proposal_findings, propose
from simulations.scenario import load_scenario

GIB = 1 << 30
COST = Cost(client=3, num_examples=200, seconds=0.5, memory=GIB, gpu_memory=0, device="cpu")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (3 << 40, "3 TiB")]
)
def test_bytes_as_text(size: int, text: str) -> None:
    assert in_bytes(size) == text


def test_fewer_cpus_than_there_are() -> None:
    assert cpus(2, 2) == Finding("CPUs", "2")
    found = cpus(2, 64)
    assert (found.found, found.level) == ("2 of 64 may be used", "note")


def test_memory_below_what_a_run_needs_is_wrong() -> None:
    assert memory_finding(Memory(8 * GIB, 4 * GIB, None)).found == "4 GiB free of 8 GiB"
    assert memory_finding(Memory(8 * GIB, 4 * GIB, None)).level == "ok"
    limited = memory_finding(Memory(64 * GIB, GIB // 2, 2 * GIB))
    assert limited.found == "512 MiB free of 64 GiB, limited to 2 GiB by a cgroup"
    assert limited.level == "wrong"
    assert limited.remedy


@pytest.mark.parametrize(
    ("size", "free", "level", "remedy"),
    [
        (None, 0, "ok", ""),
        (8 * GIB, 8 * GIB, "ok", ""),
        (64 << 20, 64 << 20, "note", "--shm-size"),
        (8 * GIB, 1 << 20, "note", "remove what fills it"),
    ],
)
def test_shared_memory(size: int | None, free: int, level: str, remedy: str) -> None:
    found = shared_memory(size, free)
    assert found.level == level
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/job/step", {"job/memory.max": "1000", "job/memory.current": "10", "job/step/memory.max": "max",
                          "job/step/memory.current": "5"}, [(1000, 10)]),
        ("0::/", {"memory.max": "500", "memory.current": "400"}, [(500, 400)]),
        ("0::/docker/abc", {"memory.max": "500", "memory.current": "400"}, [(500, 400)]),
        ("4:memory:/job", {"memory/job/memory.limit_in_bytes": "77",
                           "memory/job/memory.usage_in_bytes": "7"}, [(77, 7)]),
        ("4:cpu:/job", {"memory/job/memory.limit_in_bytes": "77"}, []),
        ("0::/", {"memory.max": str(1 << 62), "memory.current": "4"}, []),
        ("", {}, []),
    ],
)  # fmt: skip
def test_limits_of_cgroups(
    own: str, files: Mapping[str, str], expected: list[tuple[int, int]], tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")
    (tmp_path / "own").write_text(f"{own}\n" if own else "", encoding="utf-8")
    assert list(_limits(tmp_path / "fs", tmp_path / "own")) == expected
    assert list(_limits(tmp_path / "fs", tmp_path / "no-linux")) == []


CUDA = Graphics(gpus=[], torch="2.11.0", cuda="13.0", driver="580.1", device_files=True)


@pytest.mark.parametrize(
    ("found", "says", "level", "remedy"),
    [
        (replace(CUDA, driver="", device_files=False), "there is no NVIDIA driver here", "ok", ""),
        (replace(CUDA, cuda=None), "torch 2.11.0 is a build for the CPU alone", "note", "for CUDA"),
        (replace(CUDA, visible=""), "CUDA_VISIBLE_DEVICES = '' hides them", "note", "unset"),
        (replace(CUDA, device_files=False), "there is no /dev/nvidia0", "note", "--gpus all"),
        (replace(CUDA, error="The driver is too old"), "The driver is too old", "note", "for CUDA 13.0"),
    ],
)
def test_why_torch_sees_no_gpu(found: Graphics, says: str, level: str, remedy: str) -> None:
    (row,) = gpu_findings(found)
    assert row.found.startswith("torch sees none: ")
    assert says in row.found
    assert row.level == level
    assert remedy in row.remedy


def test_gpus_that_are_seen() -> None:
    rows = gpu_findings(replace(CUDA, gpus=[Gpu("Card A", 80 * GIB)], visible="1"))
    assert rows[0] == Finding("GPU 0", "Card A, 80 GiB, torch for CUDA 13.0, driver 580.1")
    assert rows[1].level == "note"


def test_packages_against_what_is_asked_for() -> None:
    wanted = [Requirement("flwr>=1.41,<1.42"), Requirement("torch>=2.9"), Requirement("rich>=13")]
    good = {"flwr": "1.41.0", "torch": "2.11.0+cu130", "rich": "14.0"}
    rows = against_project(">=3.11", wanted, good, running="3.12.1")
    assert {row.level for row in rows} == {"ok"}
    assert rows[-1].found == "all 3 as pyproject.toml asks"
    rows = against_project(">=3.11", wanted, {"flwr": "1.30.0", "torch": "2.9.0"}, running="3.10.0")
    wrong = {row.subject: row.found for row in rows if row.level == "wrong"}
    assert wrong["Python"] == "3.10.0, and polyfed needs >=3.11"
    assert wrong["flwr"].startswith("1.30.0, and polyfed needs ")
    assert wrong["rich"] == "is not installed, and polyfed needs >=13"
    assert "torch" not in wrong
    assert all(row.remedy for row in rows if row.level == "wrong")


def test_extras_ask_for_more() -> None:
    names = {requirement.name for requirement in with_extras(["flwr[simulation]", "no-such-package[x]"])}
    assert {"flwr", "ray", "no-such-package"} <= names


LOCK = """\
torch==2.14.1 \\
    --hash=sha256:00
old==1.0 ; python_full_version < '3' \\
    --hash=sha256:00
rich==14.0.0 ; sys_platform != 'nowhere' \\
    --hash=sha256:00
"""


def test_packages_against_the_lock() -> None:
    assert against_lock(LOCK, {"torch": "2.14.1+cpu", "rich": "14.0"}).found == "all 2 packages as locked"
    found = against_lock(LOCK, {"torch": "2.11.0"})
    assert found.level == "note"
    assert found.found == (
        "2 of 2 packages differ: torch 2.11.0 (lock: 2.14.1), rich is missing (lock: 14.0.0)"
    )


def test_the_loopback() -> None:
    assert loopback().level == "ok"
    broken = loopback("203.0.113.1")  # of nobody's machine
    assert broken.level == "wrong"
    assert "--in-process" in broken.remedy


def test_ports_that_are_taken() -> None:
    assert ports({}).level == "ok"
    found = ports({39091: "process 7 (flower-superlink) in /there", 6379: ""})
    assert found.level == "note"
    assert "39091, of the SuperLink that plain `flwr run` starts, is taken by process 7" in found.found
    assert "end that SuperLink" in found.remedy


def test_who_takes_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulations.doctor.places import _owner

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        owner = _owner(port)
        assert owner is not None
        assert not owner or f"process {os.getpid()} " in owner
    assert _owner(port) is None
    assert len(PORTS) == 5


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk("runs", tmp_path / "new" / "er").found.endswith(f" free in {tmp_path / 'new' / 'er'}")
    (tmp_path / "file").touch()
    assert disk("runs", tmp_path / "file" / "runs").level == "wrong"
    usage = lambda free: lambda _: type("Usage", (), {"free": free})  # noqa: E731
    for free, level in ((1 << 20, "wrong"), (1 << 30, "note"), (1 << 40, "ok")):
        monkeypatch.setattr("shutil.disk_usage", usage(free))
        assert disk("runs", tmp_path).level == level
    monkeypatch.setattr("os.access", lambda *_: False)
    assert disk("runs", tmp_path).found == f"{tmp_path} cannot be written to"


def test_flower_home(tmp_path: Path) -> None:
    assert flower_home(None, tmp_path).level == "ok"
    assert flower_home(str(tmp_path), tmp_path).level == "ok"
    assert "no absolute folder" in flower_home("here", tmp_path).found
    (tmp_path / "config.toml").write_text("[superlink\n", encoding="utf-8")
    assert "cannot be read" in flower_home(str(tmp_path), tmp_path).found


PLENTY = {"cohort": 10, "num_cpus": 16, "memory": 1000 * GIB}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (10, 0.0, "clients a round", 0.5)),
        ({"num_cpus": 4}, (4, 0.0, "CPUs", 1.5)),
        ({"num_cpus": 16, "threads": 4}, (4, 0.0, "CPUs", 1.5)),
        ({"memory": 5 * GIB}, (3, 0.0, "memory", 2.0)),  # 4.5 GiB, of which the server takes one
        # Of 80 GiB 72 are planned with; with the context a worker takes 10.6.
        ({"gpu_memory": 80 * GIB, "num_gpus": 1}, (6, 0.166, "memory of the GPUs", 1.0)),
        ({"gpu_memory": 80 * GIB, "num_gpus": 2}, (10, 0.2, "clients a round", 0.5)),
        ({"gpu_memory": 80 * GIB, "num_gpus": 2, "num_cpus": 2}, (2, 1.0, "CPUs", 2.5)),
    ],
)
def test_a_proposal(given: dict[str, int], expected: tuple[int, float, str, float]) -> None:
    cost = replace(COST, gpu_memory=10 * GIB if "num_gpus" in given else 0)
    assert propose(cost, **{**PLENTY, **given}) == Proposal(*expected)


def test_what_ray_makes_of_a_proposed_share() -> None:
    from simulations.config import SimulationConfig, resolve

    for number in range(1, 17):
        cost = replace(COST, gpu_memory=GIB)
        memory = int((GIB + CONTEXT) * (number + 0.5) / 0.9)
        found = propose(cost, cohort=99, num_cpus=64, memory=1000 * GIB, gpu_memory=memory, num_gpus=1)
        assert found is not None
        assert found.num_workers == number
        config = SimulationConfig(num_workers=found.num_workers, client_gpus=found.client_gpus)
        assert resolve(config, num_cpus=64, num_gpus=1).num_workers == number


def test_not_even_one_worker_fits() -> None:
    assert propose(COST, cohort=10, num_cpus=2, memory=GIB) is None
    rows = proposal_findings(COST, None)
    assert rows[0].found == "client 3, 200 examples: 0.50 s a round, 1 GiB on cpu"
    assert rows[1].level == "wrong"


def test_a_proposal_in_words() -> None:
    cost = replace(COST, gpu_memory=GIB, device="cuda:0")
    one, proposal = proposal_findings(cost, Proposal(4, 0.25, "memory", 1.5))
    assert one.found.endswith("0.50 s a round, 1 GiB, 1 GiB on cuda:0")
    assert proposal.found == (
        "-c num-workers=4 -c client-gpus=0.25 (memory allows no more; training takes about 1.5 s a round)"
    )


@pytest.mark.slow
def test_one_client_is_measured_in_a_process_of_its_own() -> None:
    cost = measure(load_scenario("cnn-digits", ["device=cpu"]))
    assert cost.device == "cpu"
    assert cost.gpu_memory == 0
    assert cost.num_examples > 100
    assert 0 < cost.seconds < 600
    assert 100 << 20 < cost.memory < 8 * GIB  # torch alone takes more than the least


@pytest.mark.slow
def test_a_scenario_that_cannot_be_measured() -> None:
    with pytest.raises(UserError, match="unknown task 'cnm'"):
        measure(load_scenario("cnn-digits", ["task=cnm"]))
    with pytest.raises(RunFailedError, match="one client could not be trained: "):
        measure(load_scenario("cnn-digits", ["optimizer=sgd", "learning-rate=1e38"]))


def test_a_scenario_that_asks_for_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(scenario, "measure", lambda _: pytest.fail("must not be measured"))
    ended = polyfed("doctor", "cnn-digits", "-c", "client-gpus=0.5")
    assert ended.code == 1
    assert "client-gpus must be at most 0, the GPUs of this machine, got 0.5" in ended.out
    assert ended.out.splitlines()[-1].startswith("Wrong: ")
    assert ended.out.splitlines()[-1].endswith("scenario.")


def test_an_override_needs_a_scenario() -> None:
    ended = polyfed("doctor", "-c", "alpha=1")
    assert (ended.code, ended.out) == (2, "")
    assert "-c needs a SCENARIO" in ended.err


@pytest.mark.slow
def test_the_real_command(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from simulations.entry import main; main()", "doctor", "cnn-digits"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", env=_environment()
    )
    rows = dict(re.findall(r"^(?:ok|note|wrong) +(.+?)  +(.+)$", ended.stdout, flags=re.MULTILINE))
    for subject in ("CPUs", "memory", "/dev/shm", "flwr", "ray", "torch", "lock", "loopback", "one client"):
        assert subject in rows, ended.stdout + ended.stderr
    assert "num-workers=" in rows["proposal"]
    assert ended.returncode == 0, ended.stdout


@pytest.mark.slow
def test_without_flower_and_ray_it_still_says_what_is_missing() -> None:
    code = (
        "import sys\n"
        "sys.modules.update({name: None for name in ('flwr', 'ray')})\n"
        "import simulations.doctor.packages as packages\n"
        "found = packages.packages()\n"
        "packages.packages = lambda: {name: found[name] for name in found if name not in ('flwr', 'ray')}\n"
        "sys.argv = ['polyfed', 'doctor', 'mnist']\n"
        "from simulations.cli import main; main()"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=_environment())
    assert ended.returncode == 1, ended.stderr
    assert re.search(
        r"^wrong +flwr +is not installed, and polyfed needs .*pip install", ended.stdout, re.MULTILINE
    )
    assert "Wrong: flwr, ray" in ended.stdout
    assert "not looked at" in ended.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
