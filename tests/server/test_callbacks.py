"""Callbacks over the seam: polyfed's own, users', and what becomes of their mistakes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import callback_samples
import pytest
from places import ROOT

from models.core.config import Value
from models.core.errors import UserError
from server.callbacks.build import in_order, make_guests
from server.config import ServerConfig
from server.plan import make_plan
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


@pytest.fixture
def calls() -> list[tuple[str, Any]]:
    callback_samples.CALLS.clear()
    return callback_samples.CALLS


def small(tiny: Make, *callbacks: str, **changes: Any) -> dict[str, Value]:
    named = ", ".join(f"callback_samples:{name}" for name in callbacks)
    return tiny(**{"num_clients": 2, "trackers": "", "callbacks": named, **changes})


def result_of(config: dict[str, Value]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(
        (Path(str(config["run-dir"])) / "result.json").read_text(encoding="utf-8")
    )
    return result


def test_a_callback_that_meddles_with_the_weights_changes_no_model(tiny: Make, tmp_path: Path) -> None:
    hashes = []
    for name, callbacks in {"without": "", "with": "callback_samples:Meddles"}.items():
        folder = tmp_path / name
        run_in_process(tiny(callbacks=callbacks, task_options="norm = 'batch'", run_dir=str(folder)))
        hashes.append(json.loads((folder / "result.json").read_text(encoding="utf-8"))["weights_sha256"])
    assert hashes[0] == hashes[1]


@pytest.mark.usefixtures("drawn")
def test_a_callback_sees_the_run_from_its_start_to_its_end(tiny: Make, calls: list[Any]) -> None:
    config = small(tiny, "Notes", draw_every=2)
    run_in_process(config)
    confusion = ["confusion-matrix"]
    assert calls == [
        ("start", 0),
        ("round", 0),
        ("checkpointed", False),
        ("round", 1),
        ("checkpointed", False),  # whoever records a round does so before its checkpoint
        ("figures", (confusion, 2)),
        ("round", 2),
        ("checkpointed", True),
        ("figures", (confusion, 2)),
        ("end", ("completed", 2, 64)),
    ]
    calls.clear()
    run_in_process({**config, "num-server-rounds": 3, "resume": True})
    assert calls[:2] == [("start", 2), ("round", 3)]
    assert calls[-1] == ("end", ("completed", 3, 64))


def test_a_callback_changes_no_hash(tiny: Make, tmp_path: Path) -> None:
    hashes = set()
    for number, named in enumerate(([], ["Notes", "FailsEveryRound"])):
        config = small(tiny, *named, run_dir=str(tmp_path / str(number)))
        run_in_process(config)
        hashes.add(result_of(config)["weights_sha256"])
    assert len(hashes) == 1


def test_a_callback_can_end_the_run(tiny: Make) -> None:
    config = small(tiny, "StopsAfterOne", num_server_rounds=5)
    run_in_process(config)
    result = result_of(config)
    assert (result["status"], result["server_round"]) == ("stopped", 1)
    assert result["reason"] == "one round is enough"
    run_in_process({**config, "num-server-rounds": 2, "callbacks": "", "resume": True})
    assert (result_of(config)["status"], result_of(config)["server_round"]) == ("completed", 2)


def test_a_callback_that_fails_costs_no_run(
    tiny: Make, calls: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = small(tiny, "FailsAtTheStart", "FailsEveryRound", "Notes")
    run_in_process(config)
    assert result_of(config)["status"] == "completed"
    assert "The callback FailsAtTheStart failed in on_run_start: OSError: no disk" in caplog.text
    assert "The callback FailsEveryRound failed in on_round_end: KeyError: 'round 2'" in caplog.text
    errors = (Path(str(config["run-dir"])) / "errors.log").read_text(encoding="utf-8")
    assert " the callback FailsEveryRound in on_round_end of round 2\n" in errors
    assert 'raise KeyError(f"round {record.server_round}")' in errors  # the line of its code
    assert [what for what, _ in calls].count("start") == 1  # Notes alone: the other is called no more
    assert [told for what, told in calls if what == "round"] == [0, 1, 2]


def test_an_essential_callback_that_fails_ends_the_run_and_the_others_are_told(
    tiny: Make, calls: list[Any]
) -> None:
    config = small(tiny, "Notes", "MustNotFail")
    with pytest.raises(KeyError, match="round 0"):
        run_in_process(config)
    result = result_of(config)
    assert (result["status"], result["reason"]) == ("failed", "KeyError: 'round 0'")
    assert calls[-1] == ("end", ("failed", 0, 0))
    assert not (Path(str(config["run-dir"])) / "figures").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trackers": "tensorbord"}, r"unknown tracker 'tensorbord': did you mean tensorboard\?"),
        ({"trackers": "tensorboard, w&b"}, "unknown tracker 'w&b': known are mlflow, tensorboard, wandb"),
        ({"callbacks": "notes"}, r"unknown callback 'notes': no installed package .* give \"module:Class\""),
        ({"callbacks": "callback_samples:Lost"}, "callback 'callback_samples:Lost' cannot be imported"),
        ({"callbacks": "callback_samples:NoCallback"}, r"must be a subclass of server\.callbacks\.Callback"),
        ({"callbacks": "callback_samples:Misspelt"}, r"'on_rounds_end': did you mean on_round_end"),
        ({"callbacks": "callback_samples:NeedsAnArgument"}, "must be made without arguments: .*'where'"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(tiny: Make, changes: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_plan(tiny(**changes))


def test_names_may_have_spaces_and_count_once() -> None:
    config = ServerConfig(trackers=" tensorboard,,tensorboard ", callbacks="callback_samples:Notes,")
    assert [type(guest).__name__ for guest in make_guests(config)] == ["TensorBoard", "Notes"]
    assert make_guests(ServerConfig(trackers="", callbacks="")) == []


def test_the_order_is_as_documented() -> None:
    guests = make_guests(ServerConfig(callbacks="callback_samples:Notes"))
    assert [type(callback).__name__ for callback in in_order(guests).callbacks] == [
        "BestModel",
        "Figures",
        "TensorBoard",
        "Notes",
        "Checkpointing",
        "EarlyStopping",
        "LogLine",
    ]


@pytest.mark.usefixtures("drawn")
def test_seconds_by_phase_make_no_more_than_the_total(tiny: Make) -> None:
    config = small(tiny, "Notes", num_server_rounds=3, draw_every=1)
    run_in_process(config)
    lines = (Path(str(config["run-dir"])) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        phases = {phase: value for phase, value in row["seconds"].items() if phase != "total"}
        assert sum(phases.values()) <= row["seconds"]["total"]
    # Round 1's line tells of the best model of round 0; round 2's of round 1's figures and checkpoint.
    assert rows[0]["seconds"].keys() == {"evaluation", "total"}
    assert rows[2]["seconds"].keys() >= {"training", "evaluation", "checkpoint", "callbacks"}
    assert rows[2]["seconds"]["evaluation"] > rows[0]["seconds"]["evaluation"]  # a figure was drawn in it


@pytest.mark.slow
def test_nothing_that_draws_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, server.app\n"
        "names = ('matplotlib', 'tensorboard', 'torch.utils.tensorboard', 'wandb', 'mlflow')\n"
        "print([name for name in names if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        encoding="utf-8",
    )
    assert ended.stdout.strip() == "[]"


def test_a_mistake_in_the_constructor_of_a_callback_shows_itself() -> None:
    with pytest.raises(TypeError, match="has no len"):
        make_guests(ServerConfig(callbacks="callback_samples:FailsAsItIsMade"))


def test_in_debug_mode_too_each_callback_is_told_the_end_once(tiny: Make, calls: list[Any]) -> None:
    config = small(tiny, "Notes", "FailsAtTheEnd", num_server_rounds=1)
    with pytest.raises(OSError, match="no disk"):
        run_in_process(config, debug=True)
    assert [what for what, _ in calls].count("end") == 1
    assert result_of(config)["status"] == "failed"
