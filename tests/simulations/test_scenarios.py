"""Every scenario in simulations/configs runs, shortened; a new one joins by lying there."""

import json
import math
from collections.abc import Callable
from fnmatch import filter as matching
from pathlib import Path

import pytest
from command_line import polyfed
from raw_files import write_cifar10, write_kitti
from shortened import SCENARIOS, shorter

from models.data.datasets import find_source
from models.registry import TASKS, task_classes
from simulations.scenario import load_scenario

FILES: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "cifar10": write_cifar10,
    "kitti:.": lambda folder, _: write_kitti(folder / "training"),
}
"""Writers of small files, for the datasets that come with no package."""


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.filterwarnings("ignore:Glyph")  # an untrained language model writes what no font has
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, run = load_scenario(path), tmp_path / "run"
    changes = shorter(scenario)
    if write := FILES.get(str(scenario["dataset"])):
        write(tmp_path, monkeypatch)
        changes["data-dir"] = str(tmp_path)
    settings = [word for key, value in changes.items() for word in ("-c", f"{key}={value}")]
    ended = polyfed("run", path, "--in-process", "--run-dir", run, *settings)
    assert (ended.code, ended.err) == (0, ""), ended.out
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["server_round"]) == ("completed", 2)
    assert all(math.isfinite(value) for value in result["final"].values())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert not [failure for row in rows for failure in row["failures"]]
    assert list((run / "figures").iterdir())

    kind, name = find_source(str(scenario["dataset"])).kind, str(scenario["task"])
    (task,) = (task for task in task_classes(name, TASKS[name]) if task.kind == kind)
    declared, reported = (task.metric, *task.metrics), set(result["final"])
    assert not reported.difference(*(matching(reported, pattern) for pattern in declared)), "not in metrics"
    assert all(matching(reported, pattern) for pattern in declared), "declared, but never reported"
