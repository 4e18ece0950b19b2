"""Which process works in a folder, and how it is ended."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from command_line import polyfed

from models.core.errors import UserError
from simulations.deploy.folder import Folder, Running, stop


@pytest.fixture
def sleeper(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that says when it is ready, and ends it afterwards."""
    before = getattr(request, "param", "")
    script = f"import signal, time; {before}; print('ready', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def remembered(tmp_path: Path, pid: int, created: float) -> Folder:
    folder = Folder.made(tmp_path / "server")
    folder.remember(Running("flower-superlink", pid, created, "127.0.0.1:8000"))
    return folder


def test_a_second_program_in_a_folder_is_refused(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    folder = remembered(tmp_path, sleeper.pid, psutil.Process(sleeper.pid).create_time())
    with pytest.raises(
        UserError, match=rf"runs in .* already, as process {sleeper.pid} on 127\.0\.0\.1:8000"
    ):
        folder.check_idle()


def test_another_process_with_its_number_is_let_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    folder = remembered(tmp_path, sleeper.pid, psutil.Process(sleeper.pid).create_time() - 100)
    folder.check_idle()
    assert stop(folder, 5) == f"nothing runs in {folder.path}"
    assert sleeper.poll() is None


def test_stop_ends_it_by_sigterm(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    folder = remembered(tmp_path, sleeper.pid, psutil.Process(sleeper.pid).create_time())
    ended = polyfed("deploy", "stop", folder.path)
    assert (ended.code, ended.out) == (0, f"flower-superlink, process {sleeper.pid}, has ended\n")
    assert sleeper.wait(5) == -15
    assert polyfed("deploy", "stop", folder.path).out == f"nothing runs in {folder.path}\n"


@pytest.mark.parametrize("sleeper", ["signal.signal(signal.SIGTERM, signal.SIG_IGN)"], indirect=True)
def test_what_does_not_end_is_named(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    folder = remembered(tmp_path, sleeper.pid, psutil.Process(sleeper.pid).create_time())
    with pytest.raises(UserError, match=rf"has not ended 1 s after SIGTERM: kill -9 {sleeper.pid}"):
        stop(folder, 1)


def test_a_folder_in_which_nothing_was_started(tmp_path: Path) -> None:
    for command in ("status", "stop"):
        ended = polyfed("deploy", command, tmp_path)
        assert (ended.code, "nothing was ever started in" in ended.err) == (2, True)


def test_the_status_of_what_has_ended(tmp_path: Path) -> None:
    folder = remembered(tmp_path, os.getpid(), 0.0)
    ended = polyfed("deploy", "status", folder.path)
    assert ended.code == 1
    assert "flower-superlink: not running" in ended.out
    (folder.path / "running.json").write_text("{", encoding="utf-8")
    assert "its file is damaged" in polyfed("deploy", "status", folder.path).out
