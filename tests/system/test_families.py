"""Every task gives one hash in this process and under `flwr run`; test_ray_matrix.py has direct Ray."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tomli_w
from finished import result_of
from flower_processes import flower_simulation
from rich.console import Console
from shortened import LIKE_OTHERS, toy

from models.core.config import Value
from models.registry import TASKS
from simulations.runtime.launch import launch

IN_BARS = (*LIKE_OTHERS, "cnn", "vae")
"""Tasks whose messages hold nothing that another task's do not: under `flwr run` by `make bars` alone.

test_runtimes.py has cnn there, with all that its messages may hold.
"""


@pytest.fixture(scope="module")
def flwr_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], str]]:
    with flower_simulation(tmp_path_factory.mktemp("flower"), num_supernodes=3, num_cpus=1) as run:
        yield run


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=pytest.mark.bar if task in IN_BARS else ()) for task in TASKS]
)
def test_one_hash(task: str, tmp_path: Path, flwr_run: Callable[[Path], str]) -> None:
    def placed(way: str) -> dict[str, Value]:
        return toy(task) | {"num-nodes": 2, "run-dir": str(tmp_path / way)}

    scenario = tmp_path / "scenario.toml"
    scenario.write_text(tomli_w.dumps(placed("flwr-run")), encoding="utf-8")
    console = Console(file=io.StringIO())
    with ThreadPoolExecutor(1) as beside:  # each of the two mostly starts processes and waits
        flower = beside.submit(flwr_run, scenario)
        with launch(placed("in-process"), runtime="in-process", verbose=False, console=console):
            pass
    written = tmp_path / "flwr-run" / "result.json"
    assert written.exists(), flower.result()
    results = {way: result_of(tmp_path / way) for way in ("in-process", "flwr-run")}
    assert {way: result["status"] for way, result in results.items()} == dict.fromkeys(results, "completed")
    assert len({result["weights_sha256"] for result in results.values()}) == 1, results
