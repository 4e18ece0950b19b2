"""Workers that several runs share: the hashes of runs by themselves, and no stale code."""

import json
from pathlib import Path

import pytest
from scripts import run_script

from server.run_schema import RESULT
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults


@pytest.mark.slow
def test_runs_share_workers_and_nothing_else(tmp_path: Path) -> None:
    seen = json.loads(run_script("warm_runs.py", tmp_path).splitlines()[-1])
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
    assert seen["environment"], "between runs it is the process's own"
    assert seen["left"] == 0
