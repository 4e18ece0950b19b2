"""The `polyfed` command as a person meets it: what it prints, and how it exits."""

import json
import logging
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from command_line import Ended, polyfed
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg
from run_folders import write_run
from torch import nn

import server.run_folder
import simulations.runtime.flower
import simulations.runtime.in_process
from models.core.config import Value
from models.core.errors import UserError
from models.images.cnn import ImageClassification
from server.disk import disk_use, in_words
from server.run_folder import RunFolder, claim, hold, new_folder, write_json
from server.run_schema import LOCK, RoundRecord, RunResult
from simulations.cli import main
from simulations.runtime.flower import FlowerOutcome
from simulations.runtime.in_process import run_in_process

SCENARIO = 'dataset = "digits"\nnum-clients = 3\nnum-server-rounds = 2\n'


class Broken(FedAvg):
    """Cannot aggregate."""

    def aggregate_train(self, server_round: int, replies: Sequence[Message]) -> Any:
        raise LookupError("no [such] thing")


class Unbuildable(ImageClassification):
    """Has a mistake in its code."""

    def build(self) -> nn.Module:
        raise LookupError("no such layer")


class Mistaken(ImageClassification):
    """Tells its user of a mistake."""

    def build(self) -> nn.Module:
        raise UserError("not so")


class Warns(ImageClassification):
    """Warns in every evaluation."""

    def evaluate(self, *arguments: Any) -> Any:
        warnings.warn("[made of] glass", UserWarning, stacklevel=1)
        return super().evaluate(*arguments)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Return the folder of a run that ended well, and what the command said about it."""
    folder = tmp_path_factory.mktemp("finished")
    scenario = folder / "scenario.toml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    ended = polyfed("run", scenario, "--in-process", "--run-dir", folder / "run")
    return folder / "run", ended


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


def mistake(ended: Ended) -> str:
    """Return the one line that a mistake is answered with."""
    assert (ended.code, ended.out) == (2, ""), ended
    (line,) = ended.err.splitlines()
    assert line.startswith("polyfed: ")
    return line.removeprefix("polyfed: ")


def test_a_run_that_ends_well(finished: tuple[Path, Ended]) -> None:
    folder, ended = finished
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[-1] == f"report: {folder / 'report.html'}"
    assert lines[-2] == f"run: {folder}"
    assert lines[-3].startswith("disk: ")
    assert "checkpoints " in lines[-3]
    assert lines[-4] == f"weights: {result['weights_sha256']}"
    assert lines[-5].startswith("completed after round 2: ")
    assert "2/2" in ended.out  # the progress bar
    assert "<!doctype html>" in (folder / "report.html").read_text(encoding="utf-8")
    assert result["status"] == "completed"


def test_without_a_run_dir_the_run_lies_under_runs(scenario: Path, tmp_path: Path) -> None:
    ended = polyfed("run", scenario, "--in-process", "-c", "num-server-rounds=1")
    assert ended.code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("scenario-")
    assert f"run: {folder}" in ended.out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["num-client=3"], "unknown run-config key 'num-client': did you mean num-clients"),
        (["dataset=digit"], "unknown dataset 'digit': did you mean digits or digit-notes?"),
        (["task=cn"], "unknown task 'cn': did you mean cnn?"),
        (["strategy=FedAvgg"], "unknown strategy 'FedAvgg': did you mean FedAvg"),
        (["optimizer=sdg"], "unknown optimizer 'sdg': did you mean sgd"),
        (["partitioner=dirichlett"], "unknown partitioner 'dirichlett': did you mean dirichlet?"),
        (["clients-per-round=4"], "clients-per-round must be at most num-clients (3), got 4"),
        (
            ["num-clients=2000"],
            "num-clients must be <= 1293, the training examples of dataset 'digits', got 2000",
        ),
        (["alpha=0"], "alpha must be > 0, got 0.0"),
        (["alpha=-0.5"], "alpha must be > 0, got -0.5"),
        (["num-clients=x"], "num-clients must be a whole number, got 'x'"),
        (["num-clients"], "an override must be key=value, got 'num-clients'"),
        (["=3"], "unknown run-config key ''"),
        (
            ["dataset=mnist", "data-dir=/nowhere/at/all"],
            "data-dir must be a folder that exists, got '/nowhere/at/all'",
        ),
        (["dataset=mnist"], "dataset 'mnist' is read from a folder: set data-dir"),
        (["num-workers=9999"], "num-workers must be at most "),
        (["client-gpus=1"], "client-gpus must be at most 0, the GPUs of this machine, got 1"),
        (["client-gpus=1.5"], "client-gpus must be in [0, 1] or a whole number, got 1.5"),
        (["device=cuda"], "device is 'cuda', but torch sees no GPU"),
        (["device=gpu"], "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["task-options=norm: 1"], "task-options must be inline TOML"),
        (["task-options=norm = 'layer'"], "norm must be one of none, group, batch, got 'layer'"),
        (["strategy-options=mu = 1"], "unknown option of strategy FedAvg 'mu'"),
        (
            ["optimizer-options=momentun = 1"],
            "unknown option of optimizer sgd 'momentun': did you mean momentum?",
        ),
        (["fraction-evaluate=0.5"], "local-test-fraction must be > 0 when fraction-evaluate is, got 0.0"),
    ],
)
def test_a_mistake_in_the_run_config(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    options = [part for override in overrides for part in ("--set", override)]
    assert mistake(polyfed("run", scenario, *options, "--in-process")).startswith(message)
    assert not (tmp_path / "runs").exists()  # nothing was begun


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"task = cnn", "scenario scenario.toml is not TOML: "),
        (b"\xff\xfe\x00", "scenario scenario.toml is not TOML: "),
        (b"[train]\nx = 1", "unknown run-config key 'train'"),
        (b"num-clients = [1, 2]", "num-clients must be a whole number, got [1, 2]"),
    ],
)
def test_a_mistake_in_the_scenario(scenario: Path, content: bytes, message: str) -> None:
    scenario.write_bytes(content)
    assert mistake(polyfed("run", scenario.name)).startswith(message)


def test_a_scenario_that_is_not_there(tmp_path: Path) -> None:
    assert mistake(polyfed("run", "cnn.toml")).startswith("scenario cnn.toml is not there: give the path")
    assert mistake(polyfed("run", tmp_path)).startswith(f"scenario {tmp_path} is not there: ")
    assert mistake(polyfed("partition", "cnn.toml", "-o", "x.png")).startswith(
        "scenario cnn.toml is not there"
    )


def test_a_run_folder_in_use(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.run_folder, "PATIENCE", 0.1)
    folder = tmp_path / "run"
    lock = claim(folder, {}, resume=False)
    said = mistake(polyfed("run", scenario, "--in-process", "--run-dir", folder))
    assert said == f"run-dir {folder} is in use by another run: wait for it, or give another run-dir"
    lock.release()
    assert (
        polyfed("run", scenario, "--in-process", "-c", "num-server-rounds=1", "--run-dir", folder).code == 0
    )


def test_a_run_folder_that_holds_a_run(scenario: Path, finished: tuple[Path, Ended]) -> None:
    folder, _ = finished
    before = (folder / "result.json").read_text(encoding="utf-8")
    said = mistake(polyfed("run", scenario, "--in-process", "--run-dir", folder))
    assert said == f"run-dir {folder} already holds a run: resume it, or give another run-dir"
    said = mistake(polyfed("run", scenario, "--in-process", "--resume", folder, "--set", "seed=7"))
    assert said.startswith(f"seed is 7, but the run in {folder} has 42: a resumed run must keep it")
    assert (folder / "result.json").read_text(encoding="utf-8") == before


def test_a_run_folder_that_holds_none_cannot_be_resumed(scenario: Path, tmp_path: Path) -> None:
    said = mistake(polyfed("run", scenario, "--in-process", "--resume", tmp_path / "typo"))
    assert said == f"run-dir {tmp_path / 'typo'} holds no run to resume: there is no config.toml"
    assert not (tmp_path / "typo").exists()


def test_a_run_folder_that_is_a_file(scenario: Path) -> None:
    assert "run-dir" in mistake(polyfed("run", scenario, "--in-process", "--run-dir", scenario))


def test_two_folders_for_one_run(scenario: Path) -> None:
    said = mistake(polyfed("run", scenario, "--run-dir", "a", "--resume", "b"))
    assert said.startswith("give either --run-dir or --resume")


def test_a_run_dir_in_the_config_is_not_passed_over(scenario: Path, tmp_path: Path) -> None:
    """It may be heeded or refused, but not silently replaced by another."""
    folder = tmp_path / "mine"
    ended = polyfed("run", scenario, "--in-process", "-c", f"run-dir={folder}", "-c", "num-server-rounds=1")
    assert ended.code == 2 or (folder / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument 'SCENARIO': name one of `polyfed tasks`, or a TOML file"),
        (["rum"], "No such command 'rum'."),
        (["run", "x.toml", "--fast"], "No such option"),
        (["compare"], "Missing argument 'RUNS...'."),
        (["compare", "nowhere"], "there is no run folder "),
        (["report", "."], "/"),
    ],
)
def test_a_mistake_in_the_command(arguments: list[str], message: str) -> None:
    assert mistake(polyfed(*arguments)).startswith(message)


def test_help_is_no_mistake() -> None:
    ended = polyfed("--help")
    assert (ended.code, ended.err) == (0, "")
    assert all(command in ended.out for command in ("run", "compare", "report", "partition"))


def test_without_a_command_there_is_help_and_no_empty_complaint() -> None:
    ended = polyfed()
    assert "compare" in ended.out + ended.err
    assert "polyfed: " not in ended.err.replace("Usage: polyfed", "")


def test_a_run_that_fails(scenario: Path, tmp_path: Path) -> None:
    ended = polyfed(
        *("run", scenario, "--in-process", "--run-dir", tmp_path / "run"),
        *("-c", "task=faulty:FaultyCnn", "-c", "task-options=raise_at = [0, 0]"),
    )
    assert ended.code == 1
    assert ended.err.splitlines() == [
        f"warning: Round 1: client {client} failed: ValueError: a bad batch (traceback in errors.log)"
        for client in range(3)
    ]
    lines = ended.out.splitlines()
    disk = lines.pop(-4)
    assert disk.startswith("disk: ")
    assert lines[-5].startswith("round 1/2  failed  accuracy ")
    assert lines[-4:] == [
        "failed: all 3 clients of round 1 failed; client 0: ValueError: a bad batch",
        f"run: {tmp_path / 'run'}",
        f"report: {tmp_path / 'run' / 'report.html'}",
        f"tracebacks: {tmp_path / 'run' / 'errors.log'}",
    ]  # there is no checkpoint to go on from


def test_a_strategy_that_raises_is_a_run_that_failed(scenario: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = polyfed("run", scenario, "--in-process", "-c", "strategy=test_cli:Broken", "--run-dir", run)
    assert ended.code == 1
    assert "failed: LookupError: no [such] thing" in ended.out.splitlines()
    assert json.loads((run / "result.json").read_text(encoding="utf-8"))["status"] == "failed"


def test_the_traceback_is_on_the_terminal_where_it_is_asked_for(scenario: Path, tmp_path: Path) -> None:
    arguments = ("run", scenario, "--in-process", "-c", "strategy=test_cli:Broken", "--run-dir")
    quiet, verbose = polyfed(*arguments, tmp_path / "a"), polyfed(*arguments, tmp_path / "b", "-v")
    line = 'raise LookupError("no [such] thing")'
    assert line not in quiet.out + quiet.err
    assert verbose.out.count(line) == 0
    assert verbose.err.count(line) == 1
    assert "3 clients on 1 nodes" in verbose.err
    assert "3 clients on 1 nodes" not in quiet.err


def test_what_is_behind_a_mistake_is_shown_where_it_is_asked_for(scenario: Path, tmp_path: Path) -> None:
    arguments = (
        "run",
        scenario,
        "--in-process",
        "-c",
        "task=no_such_module:Task",
        "--run-dir",
        tmp_path / "run",
    )
    line = mistake(polyfed(*arguments))
    verbose = polyfed(*arguments, "-v")
    assert verbose.code == 2
    assert "ModuleNotFoundError: No module named 'no_such_module'\n" in verbose.err
    assert verbose.err.endswith(f"\npolyfed: {line}\n")


def test_a_plan_that_raises_keeps_its_traceback(scenario: Path, tmp_path: Path) -> None:
    """A mistake of the user's is one line; whatever else goes wrong is somebody's to mend."""
    run = tmp_path / "run"
    ended = polyfed("run", scenario, "--in-process", "-c", "task=test_cli:Unbuildable", "--run-dir", run)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.splitlines() == [
        "failed: LookupError: no such layer",
        f"run: {run}",
        f"tracebacks: {run / 'errors.log'}",
    ]
    said = (run / "errors.log").read_text(encoding="utf-8")
    assert " the plan of the run, before it began\n" in said
    assert '      raise LookupError("no such layer")\n' in said
    assert not (run / "config.toml").exists()  # the folder is free for the next try
    assert polyfed("run", scenario, "--in-process", "--run-dir", run).code == 0


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        ("task=test_cli:Unbuildable", LookupError),
        ("strategy=test_cli:Broken", LookupError),
        ("task=test_cli:Mistaken", UserError),
    ],
)
def test_debug_lets_the_exception_through(
    scenario: Path, monkeypatch: pytest.MonkeyPatch, override: str, kind: type[Exception]
) -> None:
    arguments = ["polyfed", "run", str(scenario), "--in-process", "--debug", "-c", override]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(kind) as caught:
        main()
    assert type(caught.value) is kind
    assert Path(str(caught.traceback[-1].path)).name == "test_cli.py"
    logging.captureWarnings(False)


def test_debug_needs_everything_in_one_process(scenario: Path) -> None:
    said = mistake(polyfed("run", scenario, "--debug"))
    assert said == "--debug needs --in-process: no exception comes here from another process"


@pytest.mark.filterwarnings("always")
def test_warnings_are_shown_each_once(scenario: Path, tmp_path: Path) -> None:
    ended = polyfed(
        "run", scenario, "--in-process", "-c", "task=test_cli:Warns", "--run-dir", tmp_path / "run"
    )
    assert ended.code == 0
    (line,) = ended.err.splitlines()
    assert line.startswith("warning: ")
    assert line.endswith("UserWarning: [made of] glass")
    assert (tmp_path / "run" / "run.log").read_text(encoding="utf-8").count(
        "UserWarning: [made of] glass"
    ) > 1


def test_a_run_whose_checkpoints_are_lost_is_not_resumed(scenario: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert polyfed("run", scenario, "--in-process", "--run-dir", run).code == 0
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    before = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "result.json", "report.html")}
    for how in ("--in-process", "--runtime=flower"):  # under Flower it is told before Flower starts
        ended = polyfed("run", scenario, how, "--resume", run, "-c", "num-server-rounds=3")
        assert (ended.code, ended.out) == (2, "")
        said = ended.err.splitlines()[-1]
        assert said.startswith(
            f"polyfed: the run in {run} has trained to round 2, but none of its checkpoints"
        )
        assert before == {name: (run / name).read_bytes() for name in before}


def test_flower_is_tried_once_more_where_it_failed_before_the_first_round(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Ray's raylet took too long on a busy machine; the second try finds a run that has begun."""
    tries = []

    def late(run_config: dict[str, Value], *_: object, **__: object) -> FlowerOutcome:
        tries.append(run_config["resume"])
        if len(tries) == 1:
            RunFolder(Path(str(run_config["run-dir"])), run_config, resume=False).close()
            return FlowerOutcome("failed", 1, "no raylet in 30 s", "30 s", may_go_better=True)
        run_in_process(run_config)
        return FlowerOutcome("completed", 2, "")

    monkeypatch.setattr(simulations.runtime.flower, "run_on_flower", late)
    ended = polyfed("run", scenario, "--runtime", "flower", "--run-dir", tmp_path / "run")
    assert (ended.code, tries) == (0, [False, True])
    assert "warning: Flower failed before the first round, and is tried once more: no raylet in" in ended.err
    assert " Flower's runtime, before the first round\n  30 s\n" in (tmp_path / "run/errors.log").read_text(
        encoding="utf-8"
    )


def test_what_flower_leaves_unfinished_has_failed_and_is_not_tried_again_after_a_round(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(run_config: dict[str, Value], *_: object, **__: object) -> FlowerOutcome:
        folder = RunFolder(Path(str(run_config["run-dir"])), run_config, resume=False)
        folder.append(RoundRecord(server_round=0))
        folder.close()
        return FlowerOutcome("failed", 1, "the SuperLink was killed (SIGKILL)", may_go_better=True)

    monkeypatch.setattr(simulations.runtime.flower, "run_on_flower", dies)
    ended = polyfed("run", scenario, "--runtime", "flower", "--run-dir", tmp_path / "run")
    assert ended.code == 1
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["reason"]) == ("failed", "the SuperLink was killed (SIGKILL)")


def test_a_run_that_is_launched_in_the_same_folder_is_not_shown_another_ones_progress(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even before the first one's ServerApp has taken the folder, which takes seconds under Flower."""
    monkeypatch.setattr(server.run_folder, "PATIENCE", 0.1)
    said = []

    def meanwhile(run_config: dict[str, Value], *_: object, **__: object) -> FlowerOutcome:
        said.append(mistake(polyfed("run", scenario, "--in-process", "--run-dir", tmp_path / "run")))
        return FlowerOutcome("stopped", 1, "enough")

    monkeypatch.setattr(simulations.runtime.flower, "run_on_flower", meanwhile)
    polyfed("run", scenario, "--runtime", "flower", "--run-dir", tmp_path / "run")
    assert said == [
        f"run-dir {tmp_path / 'run'} is in use by another run: wait for it, or give another run-dir"
    ]


def test_runs_that_start_in_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_folder(tmp_path / "runs", "cnn-20261126-101500"), range(8)))
    names = {"cnn-20261126-101500", *(f"cnn-20261126-101500-{number}" for number in range(2, 9))}
    assert {folder.name for folder in made} == names


def test_a_mistake_leaves_no_empty_run_folder(scenario: Path, tmp_path: Path) -> None:
    mistake(polyfed("run", scenario, "--in-process", "-c", "strategy=FedNothing"))
    assert not (tmp_path / "runs").exists()
    # What is told when the folder has its locks already.
    said = mistake(polyfed("run", scenario, "--ray-address", "127.0.0.1:1"))
    assert "no Ray cluster answers at 127.0.0.1:1" in said
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_can_be_cleaned(scenario: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    polyfed("run", scenario, "--in-process", "-c", "num-server-rounds=1", "--run-dir", run)
    (run / "clients" / "000" / "client-0").mkdir(parents=True)
    before = disk_use(run)
    ended = polyfed("clean", run)
    assert (ended.code, ended.out) == (0, f"freed: {in_words({'other': before['checkpoints']})}\n")
    assert disk_use(run) == {name: size for name, size in before.items() if name != "checkpoints"}
    assert not (run / "clients").exists()
    assert "has kept no checkpoint" in mistake(polyfed("run", scenario, "--in-process", "--resume", run))
    write_json(run / "result.json", RunResult(status="failed"))
    assert "is failed, and its checkpoints may be wanted" in mistake(polyfed("clean", run))


def test_where_one_run_is_not_finished_none_is_cleaned(tmp_path: Path) -> None:
    one, other = (write_run(tmp_path / name) for name in ("one", "other"))
    failed = write_run(tmp_path / "failed", result={"status": "failed"})
    for run in (one, other, failed):
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "round-3.safetensors").write_bytes(b"123")
    said = mistake(polyfed("clean", one, other, failed, tmp_path / "absent"))
    assert said == (
        f"nothing was removed: {failed} is failed, and its checkpoints may be wanted to go on with: delete "
        f"the folder itself where they are not; there is no run folder {tmp_path / 'absent'}"
    )
    lock = hold(other, LOCK)
    said = mistake(polyfed("clean", one, one, other))
    assert said.startswith(f"nothing was removed: run-dir {other} is in use by another run")
    lock.release()
    assert all((run / "checkpoints" / "round-3.safetensors").exists() for run in (one, other, failed))
    assert polyfed("clean", one, one, other).out == "freed: 6 B\n"
    assert not (one / "checkpoints").exists()


def test_the_kept_datasets_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYFED_CACHE", str(tmp_path))
    kept, other = tmp_path / "digits-0.safetensors", tmp_path / "notes.txt"
    for path in (kept, other):
        path.write_bytes(bytes(1500))
    ended = polyfed("clean", "--cache")
    assert (ended.code, ended.out) == (0, "freed: 1.5 kB\n")
    assert list(tmp_path.iterdir()) == [other]
    assert "name run folders to clean, or give --cache" in mistake(polyfed("clean"))


def test_a_run_that_never_began_says_why_and_no_more(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> FlowerOutcome:
        return FlowerOutcome("failed", None, "the SuperLink ended: address already in use", "Errno 98")

    monkeypatch.setattr(simulations.runtime.flower, "run_on_flower", refused)
    ended = polyfed("run", scenario, "--runtime", "flower", "--run-dir", tmp_path / "run")
    assert (ended.code, ended.err) == (1, "")
    assert "failed: the SuperLink ended: address already in use" in ended.out.splitlines()
    said = (tmp_path / "run" / "errors.log").read_text(encoding="utf-8")
    assert " Flower's runtime, which ended without a result\n  Errno 98\n" in said


def test_ctrl_c(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulations.runtime.in_process.InProcessGrid, "answers", interrupted)
    run = tmp_path / "run"
    ended = polyfed("run", scenario, "--in-process", "--run-dir", run)
    assert ended.code == 130
    assert ended.err.strip() == "polyfed: interrupted"
    assert "Traceback" not in ended.err
    monkeypatch.undo()
    claim(run, {}, resume=True).release()  # it has let go of the folder
    assert json.loads((run / "result.json").read_text(encoding="utf-8"))["reason"] == "interrupted"
    monkeypatch.chdir(tmp_path)
    assert "unfinished" in polyfed("compare", run).out


def test_a_resumed_run_goes_on(scenario: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert polyfed("run", scenario, "--in-process", "-c", "num-server-rounds=1", "--run-dir", run).code == 0
    ended = polyfed("run", scenario, "--in-process", "--resume", run)
    assert (ended.code, ended.err) == (0, "")
    rounds = [
        json.loads(line)["server_round"]
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert rounds == [0, 1, 2]


def test_compare(finished: tuple[Path, Ended], tmp_path: Path) -> None:
    folder, _ = finished
    ended = polyfed("compare", folder, folder)
    assert (ended.code, ended.err) == (0, "")
    assert "completed" in ended.out
    assert "The configs do not differ." in ended.out


def test_report(finished: tuple[Path, Ended], tmp_path: Path) -> None:
    folder, _ = finished
    page = tmp_path / "new" / "page.html"
    ended = polyfed("report", folder, "--output", page)
    assert (ended.code, ended.out, ended.err) == (0, f"{page}\n", "")
    assert "accuracy" in page.read_text(encoding="utf-8")


def test_partition_draws_a_picture(scenario: Path, tmp_path: Path) -> None:
    ended = polyfed("partition", scenario, "-o", tmp_path / "who.svg", "-c", "alpha=0.1")
    assert (ended.code, ended.out, ended.err) == (0, f"{tmp_path / 'who.svg'}\n", "")
    assert "<svg" in (tmp_path / "who.svg").read_text(encoding="utf-8")


def test_a_partition_of_data_that_the_task_does_not_learn_from(scenario: Path, tmp_path: Path) -> None:
    ended = polyfed("partition", scenario, "-o", tmp_path / "who.svg", "-c", "dataset=pydoc")
    assert mistake(ended) == "task cnn learns from images, and dataset pydoc holds text"
    assert not (tmp_path / "who.svg").exists()


@pytest.mark.parametrize("output", ["who.docx", "nowhere/who.png"])
def test_a_picture_that_cannot_be_written(scenario: Path, output: str) -> None:
    ended = polyfed("partition", scenario, "-o", output)
    assert output in mistake(ended)


def test_a_folder_may_have_brackets_in_its_name(scenario: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a[bold]b[" / "c]"
    ended = polyfed("run", scenario, "--in-process", "--run-dir", folder, "-c", "num-server-rounds=1")
    assert ended.code == 0
    assert ended.out.splitlines()[-2:] == [f"run: {folder}", f"report: {folder / 'report.html'}"]


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_code_in_a_run_that_exits_does_not_choose_the_exit_code(
    scenario: Path, tmp_path: Path, debug: list[str]
) -> None:
    how = ["-c", "task=awkward:Awkward", "-c", "task-options={raise_at = [1, 2], kind = 'exit'}", *debug]
    ended = polyfed("run", scenario, "--in-process", "--run-dir", tmp_path / "run", *how)
    assert ended.code == 1
    assert "failed: SystemExit: 0" in ended.out


def test_a_folder_that_cannot_be_written_is_a_mistake(scenario: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "lock").mkdir(parents=True)
    ended = polyfed("run", scenario, "--in-process", "--run-dir", folder)
    assert mistake(ended) == f"run-dir {folder} cannot be written (Is a directory): give another folder"


def test_ctrl_c_ends_with_the_command_that_goes_on(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, grid = tmp_path / "a [run]", simulations.runtime.in_process.InProcessGrid
    answer = grid.answers

    def interrupted(*arguments: Any) -> Any:
        if any((run / "checkpoints").glob("round-*1.safetensors")):
            raise KeyboardInterrupt
        return answer(*arguments)

    monkeypatch.setattr(grid, "answers", interrupted)
    ended = polyfed("run", scenario, "--in-process", "--run-dir", run)
    said = f"polyfed: interrupted; go on: polyfed run --resume '{run}' --in-process"
    assert (ended.code, ended.err.strip()) == (130, said)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert polyfed("run", "--resume", run, "--in-process").code == 0


@pytest.mark.parametrize("name", ["a[/b]", "a[bold", "[/]", "a\\"])
def test_brackets_in_a_name_are_printed_as_they_are(scenario: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    ended = polyfed("run", scenario, "--in-process", "--run-dir", folder, "-c", "num-server-rounds=1")
    assert (ended.code, ended.err) == (0, "")
    assert f"run: {folder}" in ended.out.splitlines()
    assert mistake(polyfed("run", scenario, "--in-process", "--run-dir", folder)).startswith(
        f"run-dir {folder} already holds"
    )
    assert folder.name in polyfed("compare", folder).out


@pytest.mark.parametrize("how", [["--grid", "seed=[1, 2]"], ["--arm", "{seed = 1}"], ["-c", "seed=1"]])
def test_a_seed_is_varied_by_seeds_alone(scenario: Path, how: list[str]) -> None:
    said = mistake(polyfed("sweep", scenario, "--seeds", "1,2", *how))
    assert said == "seed is no key to vary or to set in a sweep: give the seeds as --seeds 1,2,3"
