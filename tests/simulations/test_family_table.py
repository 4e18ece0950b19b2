"""The table of model families: which runs it is made of, what it says of them, and how it goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import Result
from command_line import hear_ctrl_c
from places import ROOT
from run_folders import write_run
from typer import Typer
from typer.testing import CliRunner

from models.core.errors import UserError
from simulations.bench import families
from simulations.bench.family_table import Row, row_of
from simulations.bench.trials import Family, find_pairs, plan_family
from simulations.runs.reader import read_run

TOY = """
dataset = "digits"
num-clients = 6
clients-per-round = 3
num-server-rounds = 4
local-epochs = 2
evaluate-every = 2
"""


@pytest.fixture
def scenarios(tmp_path: Path) -> Path:
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "toy.toml").write_text(TOY, encoding="utf-8")
    (folder / "toy-centralized.toml").write_text(
        'dataset = "digits"\nnum-clients = 1\npartitioner = "iid"\n', encoding="utf-8"
    )
    (folder / "lonely.toml").write_text(TOY, encoding="utf-8")
    return folder


def command(*arguments: object) -> Result:
    app = Typer()
    app.command()(families.main)
    return CliRunner().invoke(app, [*map(str, arguments)])


def lines_of(*untrained_and_later: float, metric: str = "accuracy") -> list[dict[str, object]]:
    return [
        {"server_round": number, "central": {metric: value}}
        for number, value in enumerate(untrained_and_later)
    ]


def write_family(family: Family, federated: float, centralized: float, alone: list[float]) -> None:
    """Write finished runs that reached these accuracies, from 0.125 untrained; each took 90 s."""
    reached = [federated, centralized, *alone]
    for trial, best in zip(family.trials, reached, strict=True):
        result = {"best": {"accuracy": best}, "final": {"accuracy": 0.0}, "seconds": 90.0}
        write_run(trial.folder, rounds=lines_of(0.125, best, 0.0), result=result)


def test_every_scenario_with_a_centralized_twin_is_a_row(scenarios: Path) -> None:
    assert find_pairs(scenarios) == {"toy": scenarios / "toy.toml"}
    own = find_pairs(families.SCENARIOS)
    assert own.keys() >= {"cnn", "dqn", "gan", "lstm-forecast", "lstm-text", "ner", "vae"}
    for path in own.values():  # every one of them can be planned
        family = plan_family(path, scenarios, 3, None)
        assert len({trial.folder for trial in family.trials}) == 2 + min(3, family.num_clients)


def test_a_client_by_itself_trains_for_the_epochs_of_one_in_the_federation(scenarios: Path) -> None:
    family = plan_family(scenarios / "toy.toml", scenarios, 2, None)
    assert (family.num_clients, family.seed, len(family.alone)) == (6, 42, 2)
    overrides = [dict(text.split("=", 1) for text in trial.overrides) for trial in family.alone]
    # Three of six take part in a round, so a client is in two of the four.
    assert {one["num-server-rounds"] for one in overrides} == {"2"}
    assert {one["evaluate-every"] for one in overrides} == {"1"}
    clients = [int(one["strategy-options"].removeprefix("client = ")) for one in overrides]
    assert clients == sorted(set(clients))
    assert set(clients) <= set(range(6))
    everybody = plan_family(scenarios / "toy.toml", scenarios, 9, None)
    assert [trial.name for trial in everybody.alone] == [f"toy client {client}" for client in range(6)]
    assert family.federated.overrides == family.centralized.overrides == ()


def test_text_clients_by_themselves_train_for_as_many_epochs_as_the_baseline() -> None:
    family = plan_family(families.SCENARIOS / "lstm-text.toml", Path("runs"), 1, None)
    assert family.alone[0].num_rounds == family.centralized.num_rounds == 8


def test_another_config_is_another_run(scenarios: Path) -> None:
    toy = scenarios / "toy.toml"
    before, same = (plan_family(toy, scenarios, 2, None) for _ in range(2))
    assert before == same
    for seed in (None, 7):
        toy.write_text(TOY.replace("rounds = 4", "rounds = 6") if seed is None else TOY, encoding="utf-8")
        after = plan_family(toy, scenarios, 2, seed)
        assert {trial.folder for trial in after.trials}.isdisjoint(
            {before.federated.folder, *(trial.folder for trial in before.alone)}
        )
    toy.write_text(
        TOY + "checkpoint-every = 3\nnum-workers = 1\n", encoding="utf-8"
    )  # how it is run is not what it computes
    assert plan_family(toy, scenarios, 2, None).federated.folder == before.federated.folder


def test_the_table_of_finished_runs(scenarios: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    family = plan_family(scenarios / "toy.toml", folder, 2, None)
    write_family(family, federated=0.76, centralized=0.8, alone=[0.25, 0.5])
    ended = command("--scenarios", scenarios, "--folder", folder, "--alone", 2)
    assert ended.exit_code == 0, ended.output
    head, _, row, _, words, *rest = (folder / "table.md").read_text(encoding="utf-8").split("\n")
    assert head == (
        "| task | metric | untrained | local only | federated | centralized | difference | minutes |"
    )
    assert row == "| toy | accuracy ↑ | 0.1250 | 0.3750 (2 of 6) | 0.7600 | 0.8000 | -5.0 % | 6.0 |"
    assert words.startswith("Seed 42. ")
    assert rest == [""]
    assert "-5.0 %" in ended.output
    assert "table: " in ended.output


@pytest.mark.parametrize(
    ("maximize", "federated", "centralized", "difference"),
    [(True, 9.0, 10.0, -0.1), (False, 9.0, 10.0, 0.1), (True, -11.0, -10.0, -0.1), (False, 3.0, 2.0, -0.5)],
)
def test_more_is_better_or_less_is(
    maximize: bool, federated: float, centralized: float, difference: float
) -> None:
    row = Row("toy", "score", maximize, 0.0, 0.0, 1, 1, federated, centralized, 0.0)
    assert row.difference == pytest.approx(difference)


def test_what_is_missing_is_left_open(scenarios: Path, tmp_path: Path) -> None:
    family = plan_family(scenarios / "toy.toml", tmp_path, 2, None)
    write_family(family, 0.75, 0.8, [0.25, 0.5])
    for trial in (family.centralized, family.alone[0]):
        (trial.folder / "result.json").unlink()
    row = row_of(family)
    assert (row.untrained, row.alone, row.federated, row.centralized) == (0.125, None, 0.75, None)
    assert row.cells()[2:7] == ["0.1250", "– (2 of 6)", "0.7500", "–", "–"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "toys"], "unknown task 'toys': did you mean toy?"),
        (["--scenarios", ROOT / "tests" / "conll"], "holds no pair of scenarios NAME.toml and NAME-central"),
        (["--folder", ROOT / "Makefile"], "Makefile cannot be made (File exists): give another one"),
    ],
)
def test_a_mistake_is_one_line(scenarios: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    ended = command("--scenarios", scenarios, "--folder", tmp_path, *arguments)
    assert ended.exit_code == 2
    assert message in ended.output
    assert ended.output.count("\n") == 1


def test_a_baseline_without_its_federation_is_not_passed_over(scenarios: Path) -> None:
    (scenarios / "toy.toml").unlink()
    with pytest.raises(UserError, match=r"holds toy-centralized\.toml without toy\.toml: add or remove one"):
        find_pairs(scenarios)


@pytest.mark.slow
def test_a_half_done_table_goes_on_to_the_same_numbers(scenarios: Path, tmp_path: Path) -> None:
    (scenarios / "toy-centralized.toml").write_text(
        'dataset = "digits"\nnum-clients = 1\nnum-server-rounds = 2', encoding="utf-8"
    )
    arguments = ["--scenarios", scenarios, "--alone", 1, "--only", "toy"]
    whole, half = tmp_path / "whole", tmp_path / "half"
    ended = command(*arguments, "--folder", whole, "--workers", 2)
    assert ended.exit_code == 0, ended.output

    shutil.copytree(whole, half)
    (half / "table.md").unlink()
    family, again = (plan_family(scenarios / "toy.toml", folder, 1, None) for folder in (whole, half))
    finished = (again.centralized.folder / "result.json").stat()
    shutil.rmtree(again.alone[0].folder)
    interrupted = again.federated.folder  # as if it had been killed in its third round
    (interrupted / "result.json").unlink()
    for newer in interrupted.glob("checkpoints/round-00000[34]*"):
        newer.unlink()

    ended = command(*arguments, "--folder", half, "--workers", 1)
    assert ended.exit_code == 0, ended.output
    assert (again.centralized.folder / "result.json").stat().st_mtime_ns == finished.st_mtime_ns
    for one, other in zip(family.trials, again.trials, strict=True):
        results = read_run(one.folder).result, read_run(other.folder).result
        assert results[0] is not None
        assert results[1] is not None
        assert results[0].weights_sha256 == results[1].weights_sha256
    rows = [
        (folder / "table.md").read_text(encoding="utf-8").splitlines()[2].split(" | ")[:-1]
        for folder in (whole, half)
    ]
    assert rows[0] == rows[1]
    assert "–" not in "".join(rows[0])


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(scenarios: Path, tmp_path: Path) -> None:
    (scenarios / "toy-centralized.toml").write_text(
        'dataset = "digits"\nnum-clients = 1\nlearning-rate = 1e30\nnum-server-rounds = 1', encoding="utf-8"
    )
    ended = command("--scenarios", scenarios, "--folder", tmp_path, "--alone", 1)
    assert ended.exit_code == 1
    row = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()[2].split(" | ")
    assert row[5] == row[6] == "–"
    assert float(row[4]) > float(row[2])
    assert "toy centralized: failed: all 1 clients of round 1 failed" in ended.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"),
    [
        (signal.SIGINT, 130),
        # test_sweep_processes.py has it: the same function runs the runs of a sweep
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.bar),
    ],
)
def test_no_run_outlives_the_command(scenarios: Path, tmp_path: Path, how: int, code: int) -> None:
    (scenarios / "toy.toml").write_text(TOY.replace("rounds = 4", "rounds = 10000"), encoding="utf-8")
    arguments = ["--scenarios", str(scenarios), "--folder", str(tmp_path / "runs"), "--workers", "1"]
    with psutil.Popen(
        [sys.executable, "-m", "simulations.bench.families", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        preexec_fn=hear_ctrl_c,
    ) as process:
        try:
            while not list(tmp_path.glob("runs/toy/federated-*/metrics.jsonl")):
                assert process.poll() is None
                time.sleep(0.1)
            started = process.children(recursive=True)
            process.send_signal(how)
            assert process.wait(30) == code
            _, alive = psutil.wait_procs(started, timeout=20)
        finally:
            if process.is_running():
                process.kill()  # else leaving the block would wait for it
    assert started
    assert not alive
