import os
import subprocess
import sys

import psutil
import pytest

from simulations.runtime import reaper


def test_the_reaper_ends_what_detaches_ignores_signals_and_forgets_its_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(reaper, "GRACE", 0.3)
    child = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);print(flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], env={{}}, start_new_session=True);"
        "time.sleep(60)"
    )
    marked = os.environ | {reaper.MARK: str(tmp_path)}
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, env=marked, stdout=subprocess.PIPE, start_new_session=True) as process:
        process.stdout.readline()  # the child ignores SIGTERM from here on
        started = reaper.marked(str(tmp_path))
        assert len(started) == 2
        assert reaper.end(str(tmp_path))
    assert not any(reaper._is_alive(process) for process in started)


def test_the_reaper_finds_orphans_without_a_mark_by_their_files(tmp_path):
    orphan = "import time; time.sleep(60)"
    code = (
        "import subprocess, sys; log = open(sys.argv[1], 'w');"
        f"print(subprocess.Popen([sys.executable, '-c', {orphan!r}], env={{}}, stdout=log, stderr=log).pid)"
    )

    def start(log):
        command = [sys.executable, "-c", code, str(log)]
        return int(
            subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
        )

    (tmp_path / "run").mkdir()
    ours, other = start(tmp_path / "run" / "log"), start(tmp_path / "run-2")
    try:
        assert {process.pid for process in reaper.marked(str(tmp_path / "run"))} == {ours}
        assert reaper.end(str(tmp_path / "run"))
        assert psutil.pid_exists(other)
    finally:
        psutil.Process(other).kill()


def test_the_reaper_lets_other_runs_be(tmp_path):
    marked = os.environ | {reaper.MARK: str(tmp_path / "other")}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=marked, stdin=subprocess.PIPE) as process:
        assert reaper.end(str(tmp_path))
        assert process.poll() is None


CODE = "import os; from simulations.runtime.reaper import watched_folder\nwith watched_folder(): {}"


@pytest.mark.parametrize(
    ("ending", "said"), [("pass", 0), ("os._exit(1)", 1), ("os.kill(os.getpid(), 9)", 1)]
)
def test_a_process_that_is_gone_at_once_is_not_gone_without_a_word(ending: str, said: int) -> None:
    command = [sys.executable, "-c", CODE.format(ending)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, encoding="utf-8")
    assert ended.stderr.count("polyfed: the run's process was killed, or ended as ") == said
