"""Direct Ray has the hash of one process: under every strategy and for every task."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import SUPPORT

from models.registry import TASKS
from strategies.registry import STRATEGIES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "cells"),
    # The strategies take a minute and a half; test_ray.py has one of each way that replies travel.
    [("tasks", [*TASKS]), pytest.param("strategies", [*STRATEGIES], marks=pytest.mark.bar)],
    ids=["tasks", "strategies"],
)
def test_all_have_one_hash(tmp_path: Path, which: str, cells: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, str(SUPPORT / "ray_matrix.py"), str(tmp_path), which],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    hashes = json.loads(ended.stdout.splitlines()[-1])
    assert hashes.keys() == {*cells}
    assert [name for name, (on_ray, here) in hashes.items() if on_ray != here] == []
