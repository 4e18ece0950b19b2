"""Runs that are killed leave nothing on the machine; `python -m simulations.bench.kills` kills more."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.bench import left_overs
from simulations.bench.kills import SIGNALS, one_kill
from simulations.bench.left_overs import watched

LEAVES = """
import os, subprocess, sys, tempfile, time
open(sys.argv[1], "w").close()
tempfile.mkdtemp(prefix="mine-")
child = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(child, start_new_session=True)
unmarked = {name: value for name, value in os.environ.items() if name != "POLYFED_LEFT_OVERS"}
subprocess.Popen(child, start_new_session=True, env=unmarked)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/shm and no /proc")
def test_what_is_left_is_seen_and_what_others_have_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, log = tmp_path / "shm", tmp_path / "log"
    shared.mkdir()
    monkeypatch.setattr(left_overs, "SHARED", shared)
    held = "import mmap, sys; f = open(sys.argv[1], 'w+b'); f.write(b'1'); f.flush();"
    held += "m = mmap.mmap(f.fileno(), 1); print(flush=True); input()"
    with (
        watched([sys.executable, "-c", LEAVES, str(shared / "ours")], log) as found,
        subprocess.Popen(
            [sys.executable, "-c", held, str(shared / "theirs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other,
    ):
        assert other.stdout is not None
        other.stdout.readline()
        while b"ready" not in log.read_bytes():
            assert found.runs_for(0.05)
        found.runs_for(0.05)
        found.process.kill()
        found.process.wait()
        left = found.left()
        assert len(left.processes) == 2
        assert list(left.shared) == ["ours"]
        assert [Path(each).name[:5] for each in left.temporary] == ["mine-"]
        other.communicate(b"\n")
    assert not found.look()
    assert not found.temporary.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [  # test_ray.py has all of them after a round
        pytest.param(how, marks=() if how == signal.SIGKILL else pytest.mark.bar) for how in SIGNALS
    ],
)
def test_a_run_that_is_killed_at_any_instant_leaves_nothing(how: signal.Signals) -> None:
    seed = int(os.environ.get("POLYFED_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"POLYFED_KILL_SEED={seed}")  # which pytest shows where it fails
    after = random.Random(f"{seed} {how}").uniform(0.0, 10.0)
    killed = one_kill(how, after)
    assert not killed.left, killed
