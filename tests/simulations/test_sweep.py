"""A sweep runs what it says, once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from rich.console import Console
from run_folders import write_run

from models.core.errors import UserError
from server.plan import make_plan
from simulations.experiments import parallel
from simulations.experiments.processes import Process, Processes
from simulations.experiments.sweep import Space, parse_seeds, parse_space, plan_sweep, read_arms
from simulations.experiments.trial import Trial
from simulations.runs.arms import arms_of, rows
from simulations.runs.reader import read_run
from simulations.scenario import load_scenario
from strategies.registry import STRATEGIES

TOY = 'dataset = "digits"\nnum-clients = 3\nnum-server-rounds = 1\npartitioner = "iid"\n'


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(TOY, encoding="utf-8")
    return path


def test_all_combinations_of_arms_and_grid() -> None:
    space = parse_space(
        ["{strategy = 'FedAvg'}", "{strategy = 'FedProx', strategy-options = 'proximal_mu = 0.1'}"],
        ["alpha=[0.1, 1.0]"],
        [],
        [],
    )
    found = space.combinations(0, 1)
    assert [(each["strategy"], each["alpha"]) for each in found] == [
        ("FedAvg", 0.1),
        ("FedAvg", 1.0),
        ("FedProx", 0.1),
        ("FedProx", 1.0),
    ]
    assert parse_space([], [], [], []).combinations(0, 1) == [{}]


def test_random_combinations_follow_from_the_seed() -> None:
    space = parse_space([], ["batch-size=[8, 16, 32]"], ["alpha=[0.5, 2]"], ["learning-rate=[1e-4, 1e-1]"])
    first, again, other = (space.combinations(20, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 20
    assert all(0.5 <= float(each["alpha"]) <= 2 for each in first)
    rates = sorted(float(each["learning-rate"]) for each in first)
    assert 1e-4 <= rates[0] < 1e-3 < 1e-2 < rates[-1] <= 1e-1  # over orders of magnitude
    assert len(Space(grid={"alpha": [1, 2, 3]}).combinations(2, 1)) == 2
    assert len(Space(grid={"alpha": [1, 2, 3]}).combinations(9, 1)) == 3


def test_every_run_has_a_folder_of_its_config(scenario: Path, tmp_path: Path) -> None:
    options = "eta = 0.1, tau = 0.01"
    combinations = [{"strategy": "FedAdam", "strategy-options": options}, {"download": True}]
    trials = plan_sweep(scenario, combinations, [1, 2], tmp_path)
    assert len({trial.folder for trial in trials}) == 4
    assert trials[0].overrides == ('strategy="FedAdam"', f'strategy-options="{options}"', "seed=1")
    assert [trial.overrides[-1] for trial in trials] == ["seed=1", "seed=1", "seed=2", "seed=2"]
    assert len(plan_sweep(scenario, [{"alpha": 1.0}, {"alpha": 1.0}], [1], tmp_path)) == 1


def test_arms_of_a_file_join_those_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "arms.toml"
    path.write_text(
        "[[arm]]\nstrategy = 'FedAdam'\nlearning-rate = 0.1\n[[arm]]\nstrategy = 'Krum'\n", encoding="utf-8"
    )
    space = parse_space(["{strategy = 'FedAvg'}"], [], [], [], more_arms=read_arms(path))
    assert [each["strategy"] for each in space.combinations(0, 1)] == ["FedAvg", "FedAdam", "Krum"]
    assert space.arms[1] == {"strategy": "FedAdam", "learning-rate": 0.1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "the file of arms .* (cannot be read|is not TOML)"),
        ("[[arm]", "the file of arms .* (cannot be read|is not TOML)"),
        ("", "tables and nothing else, got nothing"),
        ("arm = [1]", "tables and nothing else, got arm"),
        ("strategy = 'Krum'\n[[arm]]\nalpha = 1", "got strategy, arm"),
    ],
)
def test_a_file_of_other_things_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "arms.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_arms(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["strategy"], [], [], []), "--arm must be a table such as"),
        (([], ["alpha"], [], []), r"--grid must be key=\[values\]"),
        (([], ["alpha=0.1"], [], []), r"--grid must be key=\[values\]"),
        (([], [], ["alpha=[2, 1]"], []), r"--uniform must be key=\[low, high\] with low < high, got"),
        (([], [], [], ["alpha=[0, 1]"]), "with low < high above 0, got 'alpha="),
    ],
)
def test_what_cannot_be_read_is_refused(arguments: tuple[list[str], ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_space(*arguments)


def test_bounds_need_a_number_of_draws() -> None:
    with pytest.raises(UserError, match="say how many with --random N"):
        parse_space([], [], ["alpha=[1, 2]"], []).combinations(0, 1)


def test_seeds_are_whole_numbers() -> None:
    assert parse_seeds("1,2,30") == [1, 2, 30]
    with pytest.raises(UserError, match="--seeds must be whole numbers such as 1,2,3, got '1;2'"):
        parse_seeds("1;2")


def test_a_wrong_key_is_told_before_anything_runs(scenario: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown run-config key 'alfa'"):
        plan_sweep(scenario, [{"alpha": 1.0}, {"alfa": 1.0}], [1], tmp_path)


@pytest.mark.slow
def test_the_table_of_strategies_has_them_all(tmp_path: Path) -> None:
    simulations = ROOT / "simulations"
    arms = read_arms(simulations / "bench" / "strategies.toml")
    assert {arm["strategy"] for arm in arms} == set(STRATEGIES)
    trials = plan_sweep(simulations / "configs" / "mnist-skewed.toml", arms, [1], tmp_path)
    for trial in trials:  # with options that they take
        make_plan(load_scenario(trial.scenario, trial.overrides))
    assert len(trials) == len(arms)


@pytest.mark.slow
def test_a_sweep_runs_once_and_goes_on(scenario: Path, tmp_path: Path) -> None:
    def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "simulations.cli", "sweep", str(scenario), "--seeds", "1,2"]
        command += ["--folder", str(tmp_path / "runs"), *arguments]
        wide = {**os.environ, "COLUMNS": "160"}
        return subprocess.run(
            command, capture_output=True, text=True, env=wide, check=False, encoding="utf-8"
        )

    first = sweep("--grid", "learning-rate=[0.01, 0.1]", "--target", "0.05")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "rounds to 0.05" in first.stdout
    assert (tmp_path / "runs" / "report.html").stat().st_size > 10_000
    table = (tmp_path / "runs" / "table.md").read_text(encoding="utf-8").splitlines()
    assert table[0] == (
        "| learning-rate | seeds | final accuracy ↑, validation | difference to the best "
        "| against the best | final accuracy ↑, test | rounds to 0.05 |"
    )
    assert [line.split(" | ")[0] for line in table[2:4]] == ["| 0.1", "| 0.01"]
    folders = sorted(path.parent for path in (tmp_path / "runs").glob("*/result.json"))
    assert len(folders) == 4
    ended = {path: (path / "result.json").stat().st_mtime_ns for path in folders}
    assert {read_run(path).config["learning-rate"] for path in folders} == {0.01, 0.1}
    assert all(
        "INFO polyfed: [ROUND 1/" in (path / "run.log").read_text(encoding="utf-8") for path in folders
    )
    assert "warnings in" not in first.stdout

    more = sweep("--grid", "learning-rate=[0.01, 0.1, 1e30]")
    assert more.returncode == 1
    assert "lower the learning rate" in more.stdout
    diverged = [path for path in (tmp_path / "runs").glob("*/errors.log") if path.parent not in folders]
    assert len(diverged) == 2  # one a seed
    assert all("FloatingPointError: loss is" in path.read_text(encoding="utf-8") for path in diverged)
    assert {path: (path / "result.json").stat().st_mtime_ns for path in folders} == ended


@pytest.mark.slow
def test_a_trial_without_a_checkpoint_is_set_aside_and_starts_over(scenario: Path, tmp_path: Path) -> None:
    """It could not go on, and a resume is refused."""
    (trial,) = plan_sweep(scenario, [{"checkpoint-every": 0}], [1], tmp_path / "runs")
    parallel.run_trials([trial], 1, Console(quiet=True))
    (trial.folder / "result.json").unlink()  # as if it had been killed
    metrics = (trial.folder / "metrics.jsonl").read_bytes()
    assert (trial.begun, trial.resumable, trial.run()) == (True, False, None)
    parallel.run_trials([trial], 1, Console(quiet=True))
    assert trial.run() is not None
    aside = trial.folder.with_name(f"{trial.folder.name}.cut-1")
    assert (aside / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(0)", "failed: its process ended with exit code 0, without a word"),
        (
            "import os; print('warning: x', flush=True); os.kill(os.getpid(), 9)",
            "failed: its process was killed by SIGKILL (not for lack of memory), without a word",
        ),
        ("print('failed: no memory'); raise SystemExit(1)", "failed: no memory"),
        ("raise LookupError('no such thing')", "LookupError: no such thing"),
    ],
)
def test_a_run_whose_process_dies_is_not_said_to_have_not_run(
    monkeypatch: pytest.MonkeyPatch, scenario: Path, tmp_path: Path, code: str, reason: str
) -> None:
    def start(trial: Trial, _: Processes) -> Process:
        trial.folder.mkdir()
        with (trial.folder / parallel.LOG).open("w", encoding="utf-8") as log:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)
        process.wait()
        return process

    monkeypatch.setattr(parallel, "_start", start)
    trial = Trial("a trial", scenario, (), 1, tmp_path / "trial")
    parallel.run_trials([trial], 1, Console(quiet=True))
    assert parallel.last_words(trial) == reason


def test_the_line_of_a_run_says_the_final_metric_as_the_table_does(scenario: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "trial")
    line = parallel._ending(Trial("a trial", scenario, (), 3, folder))
    assert line == "a trial: final accuracy 0.9512 (best 0.9876) in 61 s"
    assert rows(arms_of([read_run(folder)]))[0][1] == "final accuracy ↑"


def test_what_holds_for_every_run_is_an_override_of_each(scenario: Path, tmp_path: Path) -> None:
    trials = plan_sweep(scenario, [{"alpha": 1.0}], [1, 2], tmp_path, ["local-epochs=3"])
    assert [trial.overrides for trial in trials] == [
        ("local-epochs=3", "alpha=1.0", "seed=1"),
        ("local-epochs=3", "alpha=1.0", "seed=2"),
    ]


def test_a_failed_round_is_not_counted_as_done(tmp_path: Path) -> None:
    lines = ['{"server_round": 0, "train": {}}', '{"server_round": 1, "train": {"loss": 1.0}}']
    (tmp_path / "metrics.jsonl").write_text(
        "\n".join([*lines, '{"server_round": 2, "train": {}}', '{"ser']), encoding="utf-8"
    )
    assert parallel._rounds_done(tmp_path) == 1
