"""polyfed from Python: real runs, in this process."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import polyfed

SCENARIO = {"dataset": "digits", "num-clients": 3, "num-server-rounds": 2, "strategy-options": {}}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_has_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = polyfed.run(
        SCENARIO, in_process=True, progress=False, local_test_fraction=0.2, fraction_evaluate=1.0, seed=7
    )
    assert capsys.readouterr().out == ""
    assert (ran.status, ran.config["seed"], ran.config["num-clients"]) == ("completed", 7, 3)
    assert ran.folder.parent == tmp_path / "runs"
    assert list(ran.rounds.index) == [0, 1, 2]
    assert ran.rounds["clients"].tolist() == [0, 3, 3]
    assert ran.run.compared["accuracy"] == ran.rounds["central/accuracy"].iloc[-1]
    assert ran.run.result is not None
    assert ran.run.result.tested is not None
    assert ran.final["accuracy"] == ran.run.result.tested.final["accuracy"]
    assert ran.clients.index.tolist() == [(number, client) for number in (1, 2) for client in range(3)]
    assert {"accuracy", "loss"} <= set(ran.clients.columns)
    loaded = polyfed.load(ran.folder)
    assert isinstance(loaded, polyfed.RunTables)
    assert loaded.weights_sha256 == ran.weights_sha256 != ""
    pd.testing.assert_frame_equal(loaded.rounds, ran.rounds)
    gone_on = polyfed.run(resume=ran.folder, num_server_rounds=3, in_process=True, progress=False)
    assert list(gone_on.rounds.index) == [0, 1, 2, 3]


def test_a_mistake_and_a_failure_are_told_apart() -> None:
    with pytest.raises(polyfed.UserError, match="unknown run-config key 'num-client'"):
        polyfed.run(SCENARIO, num_client=4)
    with pytest.raises(polyfed.UserError, match=r"unknown scenario 'mnst': did you mean mnist\?"):
        polyfed.run("mnst")
    with pytest.raises(polyfed.UserError, match="neither the folder of a run nor that of a sweep"):
        polyfed.load(".")
    with pytest.raises(polyfed.RunFailedError, match=r"a bad batch \(run: .*runs/run-"):
        polyfed.run(
            SCENARIO,
            task="faulty:FaultyCnn",
            task_options={"raise_at": [0, 0]},
            in_process=True,
            progress=False,
        )


def test_a_run_without_clients_metrics_has_an_empty_table(tmp_path: Path) -> None:
    ran = polyfed.run(SCENARIO, num_server_rounds=1, in_process=True, progress=False, run_dir=tmp_path / "a")
    assert ran.clients.empty
    assert ran.folder == tmp_path / "a"


@pytest.mark.slow
def test_a_sweep_is_a_table_with_a_row_a_run(tmp_path: Path) -> None:
    swept = polyfed.sweep(
        SCENARIO, grid={"local_epochs": [1, 2]}, seeds=[1, 2], num_server_rounds=1, progress=False
    )
    assert swept.failures == ()
    runs = swept.runs
    assert sorted(zip(runs["seed"], runs["local-epochs"], strict=True)) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert runs["status"].tolist() == ["completed"] * 4
    assert runs["accuracy"].between(0, 1).all()
    assert swept.rounds.loc[0]["central/accuracy"].iloc[-1] == runs["validation/accuracy"].iloc[0]
    loaded = polyfed.load(swept.folder)
    assert isinstance(loaded, polyfed.SweepTables)
    assert len(loaded.runs) == 4


def test_a_seed_is_no_key_of_a_sweep() -> None:
    for how in ({"grid": {"seed": [1, 2]}}, {"arms": [{"seed": 1}]}, {"seed": 4}):
        with pytest.raises(polyfed.UserError, match="seed is no key to vary or to set in a sweep"):
            polyfed.sweep(SCENARIO, **how)


@pytest.mark.slow
def test_runs_in_one_process_leave_nothing_behind(tmp_path: Path) -> None:
    """As in a notebook: the same hash each time, and no more memory, files or threads."""
    script = """
import gc, psutil, polyfed
me = psutil.Process()
for number in range(6):
    run = polyfed.run(
        {"dataset": "digits", "num-clients": 3, "num-server-rounds": 2}, run_dir=f"run-{number}",
        in_process=True, progress=False,
    )
    gc.collect()
    print(run.weights_sha256, me.num_threads(), me.num_fds(), me.memory_info().rss >> 20)
"""
    command = [sys.executable, "-P", "-c", script]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=one, capture_output=True, encoding="utf-8", check=True)
    hashes, threads, files, megabytes = zip(*map(str.split, done.stdout.splitlines()), strict=True)
    assert len(hashes) == 6
    alone = [sys.executable, "-P", "-m", "simulations.cli", "run", str(tmp_path / "run-0" / "config.toml")]
    alone += ["--in-process", "--run-dir", str(tmp_path / "alone")]
    subprocess.run(alone, env=one, check=True, capture_output=True)
    assert {*hashes, polyfed.load(tmp_path / "alone").weights_sha256} == {hashes[0]}
    assert len(set(threads)) == 1
    assert len(set(files)) == 1
    assert int(megabytes[-1]) - int(megabytes[1]) < 20  # a run's data, model and figures are 4 at most
