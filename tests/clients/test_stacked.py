"""Clients that train side by side learn what each would have learned alone."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.core.config import Value
from models.core.errors import UserError
from server.errors import RunFailedError
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


def run(make: Make, folder: Path, **overrides: bool | int | float | str) -> dict[str, Tensor]:
    run_in_process(make(run_dir=str(folder), **overrides), num_nodes=2)
    return load_file(folder / "models" / "last.safetensors")


def last_row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return row


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        pytest.param({"optimizer": "adam", "learning_rate": 1e-3}, marks=pytest.mark.slow),
        {"strategy": "FedProx", "strategy_options": "proximal_mu = 0.5"},
        pytest.param(
            {"strategy": "FedMedian", "task_options": "norm = 'group'", "learning_rate": 5e-3},
            marks=pytest.mark.slow,
        ),
        pytest.param({"task": "vae", "optimizer": "sgd", "learning_rate": 1e-3}, marks=pytest.mark.slow),
        pytest.param(
            {"task": "gan", "optimizer": "sgd", "learning_rate": 1e-3, "task_options": "blocks = 'resnet'"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["cnn", "adam", "fedprox", "norm", "vae", "gan"],
)
def test_a_stack_equals_the_loop(tiny: Make, tmp_path: Path, overrides: dict[str, str | float]) -> None:
    # Dirichlet: the clients have unequal numbers of batches, and last batches of unequal size. Steps are
    # small where larger ones blow rounding up, at the kinks of ReLU and of max-pooling.
    skewed = {"num_clients": 6, "alpha": 0.5, "local_epochs": 2, **overrides}
    loop = run(tiny, tmp_path / "loop", **skewed)
    stacked = run(tiny, tmp_path / "stacked", **skewed, engine="stacked")
    assert distance(loop, stacked) < 5e-6
    rows = [last_row(tmp_path / name) for name in ("loop", "stacked")]
    assert rows[0]["train"] == pytest.approx(rows[1]["train"], rel=1e-5)
    assert rows[0]["clients"] == rows[1]["clients"]


def test_local_state_stays_with_its_client(tiny: Make, tmp_path: Path) -> None:
    personal = {"task_options": "local = ['classifier.2.*']", "num_server_rounds": 3}
    loop = run(tiny, tmp_path / "loop", **personal)
    stacked = run(tiny, tmp_path / "stacked", **personal, engine="stacked")
    assert distance(loop, stacked) < 5e-6
    files = sorted(path.relative_to(tmp_path / "loop") for path in (tmp_path / "loop").rglob("round-3.*"))
    assert len(files) == 4
    for file in files:
        kept = [load_file(tmp_path / name / file) for name in ("loop", "stacked")]
        assert kept[0].keys() == {"model.classifier.2.weight", "model.classifier.2.bias"}
        assert distance(*kept) < 5e-6


def test_a_stack_of_one_equals_the_loop(tiny: Make, tmp_path: Path) -> None:
    one = {"num_clients": 1, "partitioner": "iid", "num_server_rounds": 1}
    assert (
        distance(run(tiny, tmp_path / "a", **one), run(tiny, tmp_path / "b", **one, engine="stacked")) < 1e-6
    )


def test_a_client_that_raises_leaves_its_stack(tiny: Make, tmp_path: Path) -> None:
    failing = {"task": "faulty:FaultyCnn", "task_options": "raise_at = [2, 3]"}
    loop = run(tiny, tmp_path / "loop", **failing)
    stacked = run(tiny, tmp_path / "stacked", **failing, engine="stacked")
    assert distance(loop, stacked) < 5e-6
    assert last_row(tmp_path / "stacked")["failures"] == [{"client": 3, "error": "ValueError: a bad batch"}]


def test_a_client_that_diverges_fails_alone(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="all 4 clients of round 1 failed"):
        run(tiny, tmp_path / "all", engine="stacked", learning_rate=1e30)
    assert all(
        "FloatingPointError: loss is" in each["error"] for each in last_row(tmp_path / "all")["failures"]
    )


def test_an_operation_that_cannot_be_stacked_is_named(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="all 4 clients of round 1 failed; client 0: RuntimeError: vmap"):
        run(tiny, tmp_path / "run", engine="stacked", task="faulty:DropoutCnn")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"task": "dqn", "dataset": "gym:CartPole-v1"}, "not fit task dqn, which is not declared stackable"),
        ({"task": "lstm-forecast", "dataset": "sine"}, "not fit task lstm-forecast, which clips each"),
        ({"task_options": "norm = 'batch'"}, "not fit task cnn, which is not declared stackable"),
        ({"keep_optimizer": True}, 'keep-optimizer must be false when engine is "stacked"'),
    ],
)
def test_what_cannot_be_stacked_is_refused(tiny: Make, overrides: dict[str, Value], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_in_process(tiny(engine="stacked", **overrides))


def test_an_unknown_engine_is_refused(tiny: Make) -> None:
    with pytest.raises(UserError, match="unknown engine 'stack'"):
        run_in_process(tiny(engine="stack"))


def test_stacks_are_repeatable(tiny: Make, tmp_path: Path) -> None:
    first, second = (run(tiny, tmp_path / name, engine="stacked") for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)
