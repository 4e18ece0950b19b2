"""Trackers write what metrics.jsonl holds, on this machine and nowhere else."""

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished import finish
from places import ROOT, SUPPORT

from models.core.config import Value
from models.core.errors import UserError
from server.callbacks import build
from server.plan import make_plan
from server.run_schema import RoundRecord
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


def scalars_of(run: dict[str, Any]) -> dict[int, dict[str, float]]:
    records = [RoundRecord.model_validate_json(json.dumps(row)) for row in run["rows"]]
    return {record.server_round: record.scalars() for record in records}


def events_of(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard")).Reload()


@pytest.mark.usefixtures("drawn")
def test_tensorboard_has_every_number_and_the_figures(tiny: Make) -> None:
    run = finish(tiny(num_clients=2, trackers="tensorboard", local_test_fraction=0.2, fraction_evaluate=1.0))
    events = events_of(run["folder"])
    written = {
        (name, event.step): event.value for name in events.Tags()["scalars"] for event in events.Scalars(name)
    }
    expected = {
        (name, number): value for number, found in scalars_of(run).items() for name, value in found.items()
    }
    expected |= {(f"test/{name}", 2): value for name, value in run["tested"]["final"].items()}
    assert written.keys() == expected.keys()
    assert {"train/loss", "evaluate/accuracy", "central/accuracy", "bytes/up", "seconds/total"} <= {
        name for name, _ in written
    }
    assert all(written[key] == pytest.approx(expected[key], rel=1e-6) for key in expected)
    assert events.Tags()["images"] == ["confusion-matrix"]
    assert (run["folder"] / "figures" / "confusion-matrix.svg").exists()


def test_tensorboard_drops_the_rounds_that_a_resumed_run_does_again(tiny: Make) -> None:
    config = tiny(num_clients=2, trackers="tensorboard", checkpoint_every=2, num_server_rounds=3)
    run_in_process(config)
    run = finish({**config, "num-server-rounds": 4, "resume": True})
    steps = [event.step for event in events_of(run["folder"]).Scalars("central/accuracy")]
    assert steps == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("drawn")
def test_no_tracker_writes_nothing_but_the_figures_for_the_report(tiny: Make) -> None:
    run = finish(tiny(num_clients=2, num_server_rounds=1, trackers=""))
    assert not (run["folder"] / "tensorboard").exists()
    assert (run["folder"] / "figures" / "confusion-matrix.svg").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_the_run(
    tiny: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(build, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=rf"tracker {name} needs .*: pip install 'polyfed\[{name}\]'"):
        make_plan(tiny(trackers=name))


def run_apart(config: dict[str, Value], **environment: str) -> dict[str, Any]:
    """Run in a process of its own, which these packages change more of than a test can set right."""
    own = {"wandb", "mlflow"}
    clean = {key: value for key, value in os.environ.items() if key.split("_")[0].lower() not in own}
    code = "import json, sys; from finished import finish; print(finish(json.loads(sys.argv[1]))['status'])"
    folder = Path(str(config["run-dir"]))
    ended = subprocess.run(
        [sys.executable, "-c", code, json.dumps(config)],
        cwd=folder.parent,
        env={**clean, "PYTHONPATH": f"{SUPPORT}{os.pathsep}{ROOT}", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stderr
    assert "callback" not in ended.stderr, ended.stderr
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".db"] == [folder.name]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "folder": folder,
        "rows": rows,
        **json.loads((folder / "result.json").read_text(encoding="utf-8")),
    }


def wandb_records(path: Path) -> list[Any]:
    """Read a .wandb file: seven bytes, then LevelDB's log format of 32 KiB blocks, of protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part, records = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # too little for a header: the block is padded
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(part)
            records.append(record)
            part = b""
    return records


def wandb_history(folder: Path) -> dict[int, dict[str, Any]]:
    """Return step -> what was logged, over all the run's files."""
    found: dict[int, dict[str, Any]] = {}
    for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb")):
        for record in wandb_records(path):
            if record.HasField("history"):
                items = record.history.item
                row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
                found.setdefault(int(row["_step"]), {}).update(row)
    return found


@pytest.mark.slow
def test_weights_and_biases_writes_offline_files_that_hold_the_metrics(tiny: Make) -> None:
    pytest.importorskip("wandb")
    config = tiny(num_clients=2, num_server_rounds=1, trackers="wandb")
    run_apart(config)
    run = run_apart({**config, "num-server-rounds": 2, "resume": True})
    files = sorted((run["folder"] / "wandb").glob("offline-run-*"))
    assert len(files) == 2
    token = (run["folder"] / "token").read_text(encoding="utf-8")
    assert {file.name.rsplit("-", 1)[1] for file in files} == {token}  # one run, in two legs
    history = wandb_history(run["folder"])
    assert history.keys() == {0, 1, 2}
    for number, expected in scalars_of(run).items():
        for name, value in expected.items():
            assert history[number][name] == pytest.approx(value), (number, name)
    assert list(files[-1].glob("files/media/images/**/*confusion-matrix*.png"))
    # Nothing spoke to anybody: an offline run has no address to send to.
    logs = "".join(path.read_text(encoding="utf-8") for path in (run["folder"] / "wandb").rglob("*.log"))
    assert "https://" not in logs


@pytest.mark.slow
def test_mlflow_writes_a_store_of_the_runs_own_and_a_resumed_run_goes_on_in_it(tiny: Make) -> None:
    pytest.importorskip("mlflow")
    config = tiny(num_clients=2, num_server_rounds=1, trackers="mlflow")
    run_apart(config)
    run = run_apart({**config, "num-server-rounds": 2, "resume": True})
    code = (
        "import json, sys; from mlflow.tracking import MlflowClient\n"
        "client = MlflowClient(tracking_uri=sys.argv[1])\n"
        "found, = client.search_runs([e.experiment_id for e in client.search_experiments()])\n"
        "histories = {name: {m.step: m.value for m in client.get_metric_history(found.info.run_id, name)}\n"
        "             for name in found.data.metrics}\n"
        "artifacts = [f.path for f in client.list_artifacts(found.info.run_id, 'figures')]\n"
        "print(json.dumps([found.info.status, found.data.params, found.data.tags, histories, artifacts]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{run['folder'] / 'mlruns' / 'mlflow.db'}"],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        encoding="utf-8",
    )
    status, params, tags, histories, artifacts = json.loads(ended.stdout.splitlines()[-1])
    assert status == "FINISHED"
    assert params["num-clients"] == "2"
    assert tags["polyfed.weights_sha256"] == run["weights_sha256"]
    for number, expected in scalars_of(run).items():
        for name, value in expected.items():
            assert histories[name][str(number)] == pytest.approx(value), (number, name)
    assert artifacts == [f"figures/confusion-matrix-round-{number}.svg" for number in (1, 2)]


@pytest.mark.slow
def test_mlflow_goes_where_the_environment_says(tiny: Make, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    config = tiny(num_clients=2, num_server_rounds=1, trackers="mlflow")
    run = run_apart(config, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert (tmp_path / "elsewhere.db").stat().st_size > 10_000
    assert not (run["folder"] / "mlruns").exists()


@pytest.mark.slow
def test_mlflow_whose_server_is_not_there_does_not_hold_a_run_up(
    tiny: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    started = time.monotonic()
    run_in_process(tiny(num_clients=2, num_server_rounds=1, trackers="mlflow"))
    assert "The callback MLflow failed in on_run_start" in caplog.text
    assert time.monotonic() - started < 90  # with MLflow's own retries, 250 s
