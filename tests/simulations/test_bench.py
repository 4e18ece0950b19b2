"""The benchmarks measure what they say, and all three systems train the same workload."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from models.core.config import TaskConfig, Value, read
from models.data.datasets import load_dataset
from simulations.bench import scale
from simulations.bench.clock import clocked, median_of_medians, read_starts, warm_rounds
from simulations.bench.overhead import STOCK, run_polyfed, run_stock, tabulate
from simulations.bench.plain import train_plainly
from simulations.bench.scale import Cost, memory_of, middle, run_once
from simulations.bench.workload import RUN_CONFIG, network
from simulations.runs.reader import read_run
from simulations.runtime.in_process import run_in_process


def text_of(table: Table) -> str:
    """Return the table's words, one space apart, without its lines."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return " ".join(capture.get().replace("│", " ").split())


def stock_task() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stock_task", STOCK / "task.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_round_lasts_until_the_next_one_starts() -> None:
    assert warm_rounds([0.0, 5.0, 6.0, 8.0, 11.0], warm_up=1) == [1.0, 2.0, 3.0]


def test_a_slow_run_has_one_voice() -> None:
    assert median_of_medians([[1.0, 2.0, 3.0], [90.0, 90.0, 90.0, 90.0], [4.0]]) == 4.0


def test_the_clock_notes_every_round_and_changes_no_weight(
    tiny: Callable[..., dict[str, Value]], tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    run_in_process({**tiny(num_server_rounds=3), **clocked(clock)})
    run_in_process(tiny(num_server_rounds=3, run_dir=str(tmp_path / "without")))
    starts = read_starts(clock)
    assert len(starts) == 3
    assert starts == sorted(starts)
    with_clock, without = read_run(tmp_path / "run").result, read_run(tmp_path / "without").result
    assert with_clock is not None
    assert without is not None
    assert with_clock.weights_sha256 == without.weights_sha256


def test_all_systems_train_the_same_network() -> None:
    ours, stock = network(), stock_task().Net()
    shapes = [[tuple(weight.shape) for weight in net.parameters()] for net in (ours, stock)]
    assert shapes[0] == shapes[1]
    stock.load_state_dict(dict(zip(stock.state_dict(), ours.state_dict().values(), strict=True)))
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(stock(image), ours(image))


def test_the_stock_app_has_as_many_examples_and_batches_a_client() -> None:
    loader = stock_task().load_data(7, batch_size=16)
    assert [tuple(images.shape) for images, _ in loader] == [(16, 1, 8, 8)] * 2
    assert max(float(images.max()) for images, _ in loader) == 1.0


def test_the_plain_loop_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = network()
    model.load_state_dict(train_plainly(tmp_path / "clock", 10))
    held_out = load_dataset(read(TaskConfig, RUN_CONFIG)).test
    with torch.no_grad():
        loss = F.cross_entropy(model(held_out["image"] / 16), held_out["label"])
    assert loss < 2.0  # the untrained network's is 2.3
    assert len(read_starts(tmp_path / "clock")) == 10


def test_the_table_divides_by_polyfed() -> None:
    text = text_of(tabulate({"polyfed": [[0.1, 0.1], [0.3, 0.3], [0.2, 0.2]], "other": [[1.0, 3.0]]}))
    assert "polyfed 0.200 0.100 to 0.300 1.00" in text
    assert "other 2.000 2.000 to 2.000 10.00" in text


def test_the_scale_table_divides_large_by_small() -> None:
    costs = {scale.SMALL: [Cost(10.0, 0.5, 100.0)], scale.LARGE: [Cost(11.0, 0.55, 101.0)]}
    assert "ratio 1.100 1.100 1.010" in text_of(scale.tabulate(costs))


def test_the_middle_of_runs_is_taken_cost_by_cost() -> None:
    runs = [Cost(1.0, 30.0, 200.0), Cost(2.0, 10.0, 300.0), Cost(3.0, 20.0, 100.0)]
    assert middle(runs) == Cost(2.0, 20.0, 200.0)


def test_memory_includes_children() -> None:
    hold = "import sys; data = bytearray(64_000_000); print('held', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    command = [sys.executable, "-c", parent]
    with psutil.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout.readline() == "held\n"
        memory = memory_of(process)
        process.communicate()
    assert 64 < memory < 164
    assert memory_of(process) == 0.0


@pytest.mark.slow
def test_the_scale_scenario_runs() -> None:
    cost = run_once(200, scale.FEWEST_ROUNDS, in_process=True)
    assert cost.start_up > 0
    assert cost.round > 0
    assert cost.memory > 100


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_polyfed, run_stock])
def test_whole_cohorts_train_under_flower(run: Callable[[Path, int], None], tmp_path: Path) -> None:
    run(tmp_path, 3)
    assert len(read_starts(tmp_path / "clock")) == 3
