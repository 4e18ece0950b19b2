"""What fails in processes of Flower's and Ray's is told, logged and kept as it is in one process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT, SUPPORT

SCENARIO = """
dataset = "digits"
num-clients = 3
num-server-rounds = 2
num-workers = 1
num-nodes = 1
task = "faulty:FaultyCnn"
task-options = "raise_at = [1, 2], kill_at = [2, 1], unless = '/nowhere/at/all'"
"""


@pytest.mark.slow
def test_a_client_that_raises_and_a_worker_that_is_killed(tmp_path: Path) -> None:
    scenario, run = tmp_path / "scenario.toml", tmp_path / "run"
    scenario.write_text(SCENARIO, encoding="utf-8")
    command = [sys.executable, "-m", "simulations.cli", "run", str(scenario), "--run-dir", str(run)]
    command += ["--runtime", "flower"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        encoding="utf-8",
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    failed = "Round 1: client 2 failed: ValueError: a bad batch (traceback in errors.log)"
    assert ended.stderr == f"warning: {failed}\n"
    assert "\nfailed: a worker died or was killed while it worked for clients 0, 1, 2: " in ended.stdout
    assert f"\ntracebacks: {run / 'errors.log'}\n" in ended.stdout

    client, death, *more = re.split(r"\n\n(?=\S)", (run / "errors.log").read_text(encoding="utf-8"))
    assert more == []
    assert re.search(r"^\S+ \S+ client 2 in round 1 on node \d+\n", client)
    assert '    raise ValueError("a bad batch")\n' in client
    assert re.search(r"^\S+ \S+ the run, after round 1\n", death)
    assert re.search(r"\n  node \d+ said:\n", death)
    assert "ActorDiedError" in death
    assert "class_name: ClientAppActor" in death  # all that Ray said, not its last line alone

    log = (run / "run.log").read_text(encoding="utf-8")
    assert f" WARNING polyfed: {failed}\n" in log
    assert " INFO polyfed: 3 clients on 1 nodes\n" in log
    # On Flower's stream, which plain `flwr run --stream` shows, polyfed's lines stand once.
    stream = (run / "flower.log").read_text(encoding="utf-8")
    assert stream.count(failed) == 1
    assert len(re.findall(r"INFO : +3 clients on 1 nodes\n", stream)) == 1
