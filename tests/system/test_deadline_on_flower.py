"""A client that hangs in a worker of Flower's is interrupted there, and the run goes on with the others."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT, SUPPORT

SCENARIO = """
dataset = "digits"
num-clients = 4
num-server-rounds = 2
num-workers = 2
num-nodes = 2
evaluate-every = 0
task = "slow:SlowCnn"
task-options = "slow_at = [1, 0], seconds = 300.0"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("round-timeout = 20.0", " s, half of what was left of round-timeout while others of its node wait"),
        pytest.param(  # test_deadline.py has the same without processes
            "client-timeout = 10.0",
            "LateError: not done within 10 s (client-timeout), in 2 tries",
            marks=pytest.mark.bar,
        ),
    ],
)
def test_a_client_that_hangs_costs_itself_its_round(tmp_path: Path, limit: str, said: str) -> None:
    scenario, run = tmp_path / "scenario.toml", tmp_path / "run"
    scenario.write_text(limit + SCENARIO, encoding="utf-8")
    command = [sys.executable, "-m", "simulations.cli", "run", str(scenario), "--run-dir", str(run)]
    command += ["--runtime", "flower"]
    started = time.monotonic()
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert time.monotonic() - started < 250  # far from the 300 s that the client would have slept
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    (failure,), none = (row["failures"] for row in rows)
    assert none == []
    assert failure["client"] == 0
    assert failure["error"].startswith("LateError: not done within ")
    assert failure["error"].endswith(said)
    assert [row["clients"] for row in rows] == [[1, 2, 3], [0, 1, 2, 3]]  # client 2 shares the node
