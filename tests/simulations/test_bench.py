"""The benchmarks measure what they say, and all systems train the same workloads."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import torch
import typer
from finished import Make, finish
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from models.core.config import TaskConfig, Value, read
from models.core.errors import UserError
from models.data.datasets import load_dataset
from models.data.partition import make_partition
from models.registry import load_task
from server.errors import RunFailedError
from simulations.bench import nodes, play, scale, scaling, startup
from simulations.bench.clock import ClockedFedProx, clocked, median_of_medians, read_starts, warm_rounds
from simulations.bench.command import memory_of, peak_of, polyfed_run
from simulations.bench.networks import num_parameters, wide
from simulations.bench.page import PARTS, replace_between, write_page
from simulations.bench.plain import federation_of, train_plainly, train_side_by_side
from simulations.bench.real_nodes import MOMENTS, Moment
from simulations.bench.round_table import markdown, rows
from simulations.bench.rounds import planned
from simulations.bench.scale import Cost, middle, run_once
from simulations.bench.scaling import Found
from simulations.bench.systems import (
    PLAIN,
    POLYFED,
    STACKED,
    STOCK,
    STOCK_APP,
    SYSTEMS,
    Measured,
    run_polyfed,
)
from simulations.bench.workloads import WORKLOADS, inputs_and_targets
from simulations.runs.reader import read_run
from simulations.runtime.in_process import run_in_process

OF_TWO = ("polyfed --runtime flower, stacked", "polyfed, FedProx", "polyfed --in-process")
"""Systems that are a mixture of others, or are tried out below: by themselves by `make bars` alone."""
RESULTS = Path(__file__).parents[2] / "docs" / "results.md"


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


@pytest.mark.parametrize(
    ("name", "parameters", "clients", "examples", "inputs", "batches"),
    [
        ("W1", 60_362, (10, 100), 100, (3, 32, 32), 5),
        ("W2", 10_410, (100, 1000), 32, (1, 8, 8), 2),
        ("W3", 93_248, (10, 100), 64, (64,), 4),
        ("W4", 25_058_890, (10, 100), 60, (3, 32, 32), 3),
    ],
)
def test_a_workload_is_what_it_says_for_every_system(
    name: str,
    parameters: int,
    clients: tuple[int, int],
    examples: int,
    inputs: tuple[int, ...],
    batches: int,
) -> None:
    workload = WORKLOADS[name]
    config = read(TaskConfig, workload.run_config())
    dataset = load_dataset(config)
    network, own = workload.network(), load_task(config, dataset).build()
    assert num_parameters(network) == parameters
    assert [tuple(weight.shape) for weight in own.parameters()] == [
        tuple(weight.shape) for weight in network.parameters()
    ]
    assert (workload.clients_per_round, workload.num_clients) == clients
    deal = make_partition(dataset, config)
    assert {len(deal[client]) for client in (0, 1, config.num_clients - 1)} == {examples}
    assert workload.examples == examples
    batch, targets = inputs_and_targets(dataset, deal[0])
    assert batch.shape == (examples, *inputs)
    assert float(batch.max()) <= 1.0 or name == "W3"
    own.load_state_dict(network.state_dict())
    (objective,) = load_task(config, dataset).objectives
    seen = load_task(config, dataset).batch(dataset.train.take(deal[0]), torch.Generator())
    logits = network(batch).flatten(0, -2)
    assert objective.loss(own, seen) == F.cross_entropy(logits, targets.flatten())
    loader = stock_task().load_data(name, 7, config.batch_size)
    assert len(loader) == batches
    assert next(iter(loader))[0].shape == (config.batch_size, *inputs)


def test_made_data_comes_again() -> None:
    config = read(TaskConfig, WORKLOADS["W3"].run_config())
    first = load_dataset(config).train["text"]
    load_dataset.cache_clear()
    assert torch.equal(load_dataset(config).train["text"], first)


def test_the_plain_loop_learns(tmp_path: Path) -> None:
    federation = federation_of(WORKLOADS["W2"].run_config())
    model, dataset = federation.model, load_dataset(read(TaskConfig, WORKLOADS["W2"].run_config()))
    weights = train_plainly(federation, 10, tmp_path / "clock")
    torch.nn.utils.vector_to_parameters(weights, model.parameters())
    with torch.no_grad():
        loss = F.cross_entropy(model(dataset.test["image"] / 16), dataset.test["label"])
    assert loss < 2.0  # the untrained network's is 2.3
    assert len(read_starts(tmp_path / "clock")) == 10


@pytest.mark.slow
def test_two_plain_processes_do_what_one_does(tmp_path: Path) -> None:
    keys = {**WORKLOADS["W2"].run_config(), "num-clients": 20, "clients-per-round": 5}
    federation = federation_of(keys)
    before = federation.initial()
    one = train_plainly(federation, 2, tmp_path / "one")
    two = train_side_by_side(federation, 2, tmp_path / "two")
    assert torch.equal(federation.initial(), before)
    assert float((one - before).abs().max()) > 1e-3
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    assert len(read_starts(tmp_path / "two")) == 2


def test_the_largest_clients_of_a_cohort_come_first() -> None:
    keys = {**WORKLOADS["W2"].run_config(), "num-clients": 20, "partitioner": "quantity"}
    federation = federation_of({**keys, "clients-per-round": 8})
    sizes = [len(federation.rows[client]) for client in federation.cohort(3)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


@pytest.mark.slow
def test_a_plain_process_that_fails_ends_the_measurement(tmp_path: Path) -> None:
    federation = federation_of({**WORKLOADS["W2"].run_config(), "num-clients": 4, "clients-per-round": 2})
    federation.targets[:] = 10  # one of ten classes too many
    with pytest.raises(RunFailedError, match="Target 10 is out of bounds"):
        train_side_by_side(federation, 1, tmp_path / "clock")
    load_dataset.cache_clear()  # it was of that dataset


MADE_UP = {
    POLYFED: [Measured(2.0, [0.1, 0.1], 9.0), Measured(4.0, [0.3], 9.0), Measured(3.0, [0.2], 9.0)],
    STACKED: [Measured(1.0, [0.05], 9.0)],
    PLAIN: [Measured(1.0, [0.1], 9.0)],
    STOCK_APP: [Measured(20.0, [1.0, 3.0], 90.0)],
}


def test_the_table_of_rounds_divides_by_polyfed_by_plain_and_into_the_stock_app() -> None:
    assert rows(MADE_UP) == [
        [POLYFED, "0.200", "0.100 to 0.300", "1.00x", "2.00x", "10.00x", "3.0"],
        [STACKED, "0.050", "0.050 to 0.050", "0.25x", "0.50x", "40.00x", "1.0"],
        [PLAIN, "0.100", "0.100 to 0.100", "0.50x", "1.00x", "20.00x", "1.0"],
        [STOCK_APP, "2.000", "2.000 to 2.000", "10.00x", "20.00x", "1.00x", "20.0"],
    ]


def test_a_ratio_to_what_was_not_measured_is_left_out() -> None:
    assert rows({POLYFED: MADE_UP[POLYFED]})[0][3:6] == ["1.00x", "–", "–"]


def test_the_markdown_says_what_was_measured() -> None:
    text = markdown("W2", MADE_UP)
    assert text.startswith("**W2: CNN of 10,410 parameters on 8x8 digits, 100 of 1,000 clients a round")
    assert "| polyfed, stacked | 0.050 | 0.050 to 0.050 | 0.25x | 0.50x | 40.00x | 1.0 |\n" in text
    assert text.endswith(
        "Medians of 1 to 2 rounds in each of 1 to 3 interleaved runs, after 5 rounds to warm up.\n"
    )


def test_what_cannot_be_stacked_is_not_measured_stacked() -> None:
    assert ("W1", STACKED) in planned([], [])
    assert ("W3", STACKED) not in planned([], [])
    assert planned(["W3", "W4"], [STACKED, PLAIN]) == [("W3", PLAIN), ("W4", STACKED), ("W4", PLAIN)]
    assert {workload for workload, system in planned([], []) if system == STOCK_APP} == {*WORKLOADS}
    with pytest.raises(UserError, match="unknown workload 'W5'"):
        planned(["W5"], [])
    with pytest.raises(UserError, match="unknown system 'polyfedd'"):
        planned([], ["polyfedd"])


def test_the_parts_of_a_short_run_are_added_and_divided() -> None:
    turn = dict.fromkeys(startup.PARTS, 2.0)
    turn |= {
        startup.SUM: 6.0,
        startup.FIRST: 3.0,
        startup.DONE: 4.0,
        startup.WHOLE: 9.0,
        startup.RATIO: 1.5,
        startup.WARM: 1.0,
    }
    slow = {part: 10 * seconds for part, seconds in turn.items()}
    assert startup.rows({"mnist": [turn, turn, slow]})[-5:] == [
        [startup.FIRST, "3.00"],
        [startup.DONE, "4.00"],
        [startup.WHOLE, "9.00"],
        [startup.RATIO, "1.50"],
        [startup.WARM, "1.00"],
    ]


def test_the_runs_of_a_point_become_their_median() -> None:
    runs = [Found("workers", 2, POLYFED, seconds, 5.0, 300.0) for seconds in (0.3, 0.1, 0.2)]
    other = Found("workers", 2, scaling.PLAIN, 0.15, 0.0, 0.0)
    assert scaling.rows([*runs[:2], other, runs[2]]) == [
        ["workers", "2", "polyfed", "0.200", "5.0", "300"],
        ["workers", "2", "plain PyTorch", "0.150", "–", "–"],
    ]


def test_the_sizes_reach_as_far_as_they_should() -> None:
    sizes = {axis: [p.size for p in scaling.points(full=True) if p.axis == axis] for axis in scaling.AXES}
    assert (min(sizes["clients a round"]), max(sizes["clients a round"])) == (10, 1000)
    assert (min(sizes["population"]), max(sizes["population"])) == (1000, 1_000_000)
    assert (min(sizes["parameters"]), max(sizes["parameters"])) == (9_271, 49_953_002)
    assert sizes["parameters"][0] == num_parameters(wide(3))
    assert {*sizes["workers"]} == {1, 2}
    few = list(scaling.points(full=False))
    assert len(few) < len(list(scaling.points(full=True)))
    assert {point.axis for point in few} == {*scaling.AXES}


def test_what_lies_between_the_marks_is_replaced() -> None:
    page = "above\n<!-- a -->\nold\n<!-- /a -->\nbelow\n<!-- b -->\n<!-- /b -->\n"
    new = replace_between(page, "a", "new\n")
    assert new == "above\n<!-- a -->\nnew\n<!-- /a -->\nbelow\n<!-- b -->\n<!-- /b -->\n"
    assert replace_between(new, "a", "new\n") == new


@pytest.mark.parametrize(
    "page", ["", "<!-- a -->\n", "<!-- /a -->\n<!-- a -->\n", "<!-- a -->\n<!-- /a -->\n" * 2]
)
def test_marks_that_are_not_there_once_each_are_an_error(page: str) -> None:
    with pytest.raises(UserError, match="the page must hold <!-- a --> and below it <!-- /a -->"):
        replace_between(page, "a", "new\n")


def test_the_page_of_results_gets_tables_and_figures(tmp_path: Path) -> None:
    page, folder = tmp_path / "results.md", tmp_path / "numbers"
    page.write_text(RESULTS.read_text(encoding="utf-8"), encoding="utf-8")  # which has all the marks
    folder.mkdir()
    systems = {name: [vars(run) for run in runs] for name, runs in MADE_UP.items()}
    workloads = {
        name: {"machine": machine, "warm-up": 5, "systems": systems}
        for name, machine in {"W1": "a machine", "W2": "another one", "W3": "a machine"}.items()
    }
    measured = {"machine": "another one", "workloads": workloads}
    (folder / "rounds.json").write_text(json.dumps(measured), encoding="utf-8")
    found = [vars(Found(axis, 1, POLYFED, 0.1, 1.0, 1.0)) for axis in scaling.AXES]
    grown = {"machine": "a machine", "found": found}
    (folder / "scaling.json").write_text(json.dumps(grown), encoding="utf-8")
    assert write_page(page, folder) == ["bench-rounds", "bench-scaling"]
    text = page.read_text(encoding="utf-8")
    assert markdown("W2", MADE_UP) in text
    said = "\nW1, W3 measured on: a machine.\n\nW2 measured on: another one.\n<!-- /bench-rounds -->"
    assert said in text
    assert text.count("<!-- bench-") == len(PARTS)
    for figure in ("bench-rounds.svg", "bench-scaling.svg"):
        assert f"(images/{figure})" in text
        drawn = (tmp_path / "images" / figure).read_bytes()
        assert drawn.startswith(b"<?xml")
        write_page(page, folder)
        assert (tmp_path / "images" / figure).read_bytes() == drawn
    assert page.read_text(encoding="utf-8") == text


def test_the_scale_table_divides_large_by_small() -> None:
    costs = {scale.SMALL: [Cost(10.0, 0.5, 100.0, 50.0)], scale.LARGE: [Cost(11.0, 0.55, 101.0, 55.0)]}
    assert "ratio 1.100 1.100 1.010 1.100" in text_of(scale.tabulate(costs))


def test_the_middle_of_runs_is_taken_cost_by_cost() -> None:
    runs = [Cost(1.0, 30.0, 200.0, 7.0), Cost(2.0, 10.0, 300.0, 9.0), Cost(3.0, 20.0, 100.0, 8.0)]
    assert middle(runs) == Cost(2.0, 20.0, 200.0, 8.0)


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


def test_the_peak_is_of_one_process_and_outlasts_what_it_held() -> None:
    held = "import sys; data = bytearray(64_000_000); del data; print('freed', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", held]
    with psutil.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout.readline() == "freed\n"
        peak = peak_of(process)
        process.communicate()
    assert 64 < peak < 164
    assert peak_of(process) == 0.0


@pytest.mark.slow
def test_the_scale_scenario_runs() -> None:
    cost = run_once(200, scale.FEWEST_ROUNDS, runtime="in-process")
    assert cost.start_up > 0
    assert cost.round > 0
    assert cost.memory > 100
    assert cost.driver > 100


@pytest.mark.slow
def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="num-clients"):
        polyfed_run({"num-clients": 0}, tmp_path, {}, runtime="in-process")


@pytest.mark.slow
@pytest.mark.parametrize(
    "system",
    [pytest.param(name, marks=pytest.mark.bar if name in OF_TWO else ()) for name in SYSTEMS],
)
def test_whole_cohorts_train_on_every_system(system: str, tmp_path: Path) -> None:
    starts = SYSTEMS[system].run(tmp_path, "W2", 2)
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1]


@pytest.mark.slow
def test_whole_cohorts_train_under_fedprox_in_one_process(tmp_path: Path) -> None:
    options = ", proximal_mu = 0.1"
    starts = run_polyfed(tmp_path, "W2", 2, runtime="in-process", strategy=ClockedFedProx, options=options)
    assert len(starts) == 2


def test_parts_of_a_round_on_real_nodes_add_up_to_it() -> None:
    def turn(node: int, *times: float) -> list[Moment]:
        return [Moment(at, node, what) for at, what in zip(times, MOMENTS, strict=True)]

    moments = [*turn(0, 1, 2, 4), *turn(1, 2, 4, 5), *turn(2, 3, 6, 9)]
    (first,) = nodes.parts_of([0.0, 10.0], [*moments, Moment(10.5, 0, "asked")])
    assert list(first.values()) == [2.0, 2.0, 2.0, 4.0, 10.0]
    with pytest.raises(RunFailedError, match="not every node"):
        nodes.parts_of([0.0, 8.0], moments)
    whole = {**first, nodes.CPU: 4.0}
    slower = {part: 2 * seconds for part, seconds in whole.items()}
    table = nodes.rows({nodes.IDLE: [whole], nodes.RESIDENT: [whole, slower, slower]})
    assert table[-3:] == [
        ["the round", "10.00", "20.00"],
        [nodes.RATIO, "1.00", "2.00"],
        [nodes.CPU, "4.00", "8.00"],
    ]


def test_play_refuses_models_that_are_not_whole(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    run = tmp_path / "run"
    small = "steps = 4, train_every = 2, warmup = 8, hidden_size = 4, capacity = 40"
    game = {"task": "dqn", "task_options": small, "dataset": "gym:CartPole-v1?envs=1&episodes=2"}
    finish(tiny(**game, num_clients=1, partitioner="natural", num_server_rounds=1, run_dir=str(run)))
    play.main(str(run), episodes=2, seed=1)
    assert capsys.readouterr().out.endswith(" of 2 episodes\n")
    best = run / "models" / "best.safetensors"
    weights = load_file(best)
    first = min(weights)
    save_file({name: tensor for name, tensor in weights.items() if name != first}, best)
    lines = [
        f"play {best} lacks 1 weights of the model, such as {first}: it was made by other code; run again"
    ]
    lines.append(f"play {run} is no run that has kept such a model: it holds no models/best.safetensors")
    for line in lines:
        with pytest.raises(typer.Exit):
            play.main(str(run), episodes=2, seed=1)
        assert capsys.readouterr() == ("", f"{line}\n")
        best.unlink(missing_ok=True)
