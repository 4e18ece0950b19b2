"""Runs that an earlier polyfed began: they are read, and they go on as they would have gone on there.

tests/support/earlier_runs/README.md says what they are.
"""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from quadratic import valleys
from safetensors.torch import load_file, save_file

from clients.state import ClientStates
from models.core.config import Value
from models.core.errors import UserError
from models.data.datasets import DATASETS
from models.data.source import Source
from simulations.report.page import write_report
from simulations.runs.reader import read_run
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults

EARLIER = Path(__file__).resolve().parents[1] / "support" / "earlier_runs"
FIRST_STREAMS = EARLIER / "first_streams" / "FedAvg"
STRATEGIES = ("Ditto", "FedAdam", "FedAvg", "FedDyn", "LocalDP", "Scaffold")
KEEP_CLIENT_STATE = ("Ditto", "FedDyn", "Scaffold")


def copied(strategy: str, tmp_path: Path) -> tuple[Path, dict[str, Value]]:
    """Return a run folder, and the config with which it goes on to round 4."""
    folder = tmp_path / strategy
    shutil.copytree(EARLIER / strategy, folder)
    before = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    return folder, {
        **defaults(),
        "validation-fraction": 0.0,  # as runs were from before that was there
        **before,
        "run-dir": str(folder),
        "resume": True,
        "num-server-rounds": 4,
        "trackers": "",
    }


def resumed(folder: Path, config: dict[str, Value]) -> list[dict[str, dict[str, float]]]:
    """Return the rounds after those that the earlier polyfed did."""
    run_in_process(config)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()][
        3:
    ]


@pytest.fixture(autouse=True)
def _two_parabolas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "valleys", Source("parabolas", valleys))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_goes_on_as_it_would_have(strategy: str, tmp_path: Path) -> None:
    found = resumed(*copied(strategy, tmp_path))
    whole = [
        json.loads(line)
        for line in (EARLIER / strategy / "uninterrupted.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["server_round"] for row in found] == [row["server_round"] for row in whole] == [3, 4]
    for here, there in zip(found, whole, strict=True):
        for kind in ("train", "central"):
            assert here[kind] == pytest.approx(there[kind], rel=1e-6), (strategy, there["server_round"])


def test_a_run_of_other_random_numbers_is_not_continued(tmp_path: Path) -> None:
    """Its next rounds would draw other cohorts and batches than it would have drawn."""
    folder, config = copied("first_streams/FedAvg", tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    said = (
        r"the run in .*FedAvg derived its random numbers by scheme 1, and this polyfed does by scheme 2, so "
        r"it would not go on as it began: resume it with the polyfed that began it, or start another run"
    )
    with pytest.raises(UserError, match=said):
        run_in_process(config)
    assert all(path.read_bytes() == held for path, held in before.items())


def test_its_weights_begin_another_run(tmp_path: Path) -> None:
    checkpoint = FIRST_STREAMS / "checkpoints" / "round-000002.safetensors"
    (tmp_path / "first" / "models").mkdir(parents=True)
    weights = {name.removeprefix("model/"): tensor for name, tensor in load_file(checkpoint).items()}
    save_file({"w": weights["w"]}, tmp_path / "first" / "models" / "best.safetensors")
    _, config = copied("first_streams/FedAvg", tmp_path)
    new = {**config, "run-dir": str(tmp_path / "new"), "resume": False, "init-from": str(tmp_path / "first")}
    run_in_process(new)
    zeroth = json.loads((tmp_path / "new" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    last = json.loads((FIRST_STREAMS / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert zeroth["central"] == last["central"]


@pytest.mark.parametrize("strategy", KEEP_CLIENT_STATE)
def test_without_what_clients_remember_it_is_refused(strategy: str, tmp_path: Path) -> None:
    folder, config = copied(strategy, tmp_path)
    shutil.rmtree(folder / "clients")
    with pytest.raises(UserError, match="the state that client 0 had after round 2 is gone"):
        run_in_process(config)


def test_every_name_in_the_files_of_client_states_is_known() -> None:
    names = set()
    for strategy in KEEP_CLIENT_STATE:
        for client in (0, 1):
            states = ClientStates(EARLIER / strategy / "clients")
            written = load_file(states.of(client) / "round-2.safetensors")
            read = states.load(client, before=3).as_file()
            assert read.keys() == written.keys()
            assert all(torch.equal(read[name], tensor) for name, tensor in written.items())
            names |= written.keys()
    assert names == {
        "optimizer.loss.0.momentum_buffer",
        "personal-model.w",
        "personal-optimizer.loss.0.buffered",
        "personal-optimizer.loss.0.momentum_buffer",
        "rule.control/w",
        "rule.slope/w",
    }


def test_their_folders_are_read_and_reported(tmp_path: Path) -> None:
    runs = [read_run(folder) for folder in (FIRST_STREAMS, *(EARLIER / strategy for strategy in STRATEGIES))]
    assert {run.status for run in runs} == {"completed"}
    assert [run.last_round for run in runs] == [2] * len(runs)
    assert [run.result and run.result.streams for run in runs] == [1, *[2] * len(STRATEGIES)]
    page = write_report([run.path for run in runs], tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(strategy in page for strategy in STRATEGIES)
