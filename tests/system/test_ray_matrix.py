"""Direct Ray has the hash of one process: under every strategy and for every task."""

import json
from pathlib import Path

import pytest
from scripts import run_script

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
    hashes = json.loads(run_script("ray_matrix.py", tmp_path, which, timeout=600).splitlines()[-1])
    assert hashes.keys() == {*cells}
    assert [name for name, (on_ray, here) in hashes.items() if on_ray != here] == []
