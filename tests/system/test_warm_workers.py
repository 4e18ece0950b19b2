"""Workers that several runs share: the hashes of runs by themselves, and no stale code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import SUPPORT

from server.run_schema import RESULT
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults


@pytest.mark.slow
def test_runs_share_workers_and_nothing_else(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(SUPPORT / "warm_runs.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    seen = json.loads(ended.stdout.splitlines()[-1])
    alone = defaults() | {
        "dataset": "digits",
        "num-clients": 6,
        "num-server-rounds": 2,
        "keep-optimizer": True,
        "trackers": "",
        "run-dir": str(tmp_path / "alone"),
    }
    run_in_process(alone)
    sha256 = json.loads((tmp_path / "alone" / RESULT).read_text(encoding="utf-8"))["weights_sha256"]
    for name in ("first", "second", "killed", "one-worker"):
        assert seen[name]["sha256"] == sha256, name
    assert seen["scaffold"]["sha256"] != sha256
    assert {name: seen[name]["kept"] for name in ("second", "scaffold", "one", "one-again")} == {
        "second": 2,
        "scaffold": 2,
        "one": 2,
        "one-again": 2,
    }
    assert seen["two"]["kept"] == 0, "the code has changed"
    assert seen["killed"]["kept"] == 1
    words = {name: set(seen[name]["printed"].split()) for name in ("second", "one", "one-again", "two")}
    assert words == {"second": set(), "one": {"one"}, "one-again": {"one"}, "two": {"two"}}
    assert seen["left"] == 0
