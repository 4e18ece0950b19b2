"""Which process works in a folder, and how it is ended."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import polyfed

from models.core.errors import UserError
from simulations.deploy.asked import is_up
from simulations.deploy.folder import Folder, Running, stop

Sleeper = subprocess.Popen[bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.made(tmp_path / "server")


@pytest.fixture
def sleeper(request: pytest.FixtureRequest, folder: Folder) -> Iterator[Sleeper]:
    """Run a process with the words of a SuperLink's command, which is what the folder remembers."""
    before = getattr(request, "param", "pass")
    script = f"import signal, time; {before}; print('ready', flush=True); time.sleep(60)"
    words = ["flower-superlink", str(folder.ca)]
    process = subprocess.Popen([sys.executable, "-c", script, *words], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    remember(folder, process.pid)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def remember(folder: Folder, pid: int) -> None:
    folder.remember(Running("flower-superlink", pid, str(folder.path), "127.0.0.1:8000"))


def test_a_server_without_its_ca_is_told_so(folder: Folder, sleeper: Sleeper) -> None:
    running = folder.remembered()
    assert running
    with pytest.raises(UserError, match=r"the certificate .*ca\.crt cannot be read"):
        is_up(running, folder)


def test_a_second_program_in_a_folder_is_refused(folder: Folder, sleeper: Sleeper) -> None:
    with pytest.raises(
        UserError, match=rf"runs in .* already, as process {sleeper.pid} on 127\.0\.0\.1:8000"
    ):
        folder.check_idle()


def test_another_process_with_its_number_is_let_alone(folder: Folder, tmp_path: Path) -> None:
    for words in (["flower-superlink", str(tmp_path / "server-2" / "ca.crt")], ["nano", str(folder.ca)], []):
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words]) as other:
            remember(folder, other.pid)
            folder.check_idle()
            assert stop(folder, 5) == f"nothing runs in {folder.path}"
            assert other.poll() is None
            other.kill()
    folder.check_idle()


def test_a_process_that_began_at_another_time_has_got_its_number(folder: Folder, sleeper: Sleeper) -> None:
    running = folder.remembered()
    assert running
    assert running.process
    began = running.process.create_time()
    assert replace(running, began=began).process
    assert replace(running, began=began - 1).process is None


def test_of_two_that_start_at_once_one_gets_the_folder(folder: Folder) -> None:
    script = (
        "import os, sys; from pathlib import Path; from simulations.deploy.folder import Folder;"
        "Folder(Path(sys.argv[1])).hold(); print('held', flush=True);"
        "os.execv(sys.executable, [sys.executable, '-c', 'input()'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another program is being started in"):
            folder.hold()
        first.communicate(b"\n")
    folder.hold()


@pytest.mark.parametrize(
    "sleeper",
    ["signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True) or exit())"],
    indirect=True,
)
def test_stop_ends_it_by_sigterm(folder: Folder, sleeper: Sleeper) -> None:
    ended = polyfed("deploy", "stop", folder.path)
    assert (ended.code, ended.out) == (0, f"flower-superlink, process {sleeper.pid}, has ended\n")
    assert sleeper.communicate()[0] == b"heard\n"
    assert polyfed("deploy", "stop", folder.path).out == f"nothing runs in {folder.path}\n"


@pytest.mark.parametrize("sleeper", ["signal.signal(signal.SIGTERM, signal.SIG_IGN)"], indirect=True)
def test_what_does_not_end_is_named(folder: Folder, sleeper: Sleeper) -> None:
    with pytest.raises(UserError, match=rf"has not ended 0.2 s after SIGTERM: kill -9 {sleeper.pid}"):
        stop(folder, 0.2)


def test_a_folder_in_which_nothing_was_started(tmp_path: Path) -> None:
    for command in ("status", "stop"):
        ended = polyfed("deploy", command, tmp_path)
        assert (ended.code, "nothing was ever started in" in ended.err) == (2, True)


def test_the_status_of_what_has_ended(folder: Folder) -> None:
    remember(folder, os.getpid())
    ended = polyfed("deploy", "status", folder.path)
    assert ended.code == 1
    assert "flower-superlink: not running" in ended.out
    (folder.path / "running.json").write_text("{", encoding="utf-8")
    assert "its file is damaged" in polyfed("deploy", "status", folder.path).out


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir(mode=0o755)
    (tmp_path / "server" / "__init__.py").touch()
    with pytest.raises(UserError, match=r"server holds other files: give an empty folder"):
        Folder.made(tmp_path / "server")
    assert (tmp_path / "server").stat().st_mode & 0o777 == 0o755
    (tmp_path / "server" / "ca.crt").touch()
    Folder.made(tmp_path / "server")
