"""Evaluation on the clients and at the server, the best model, and when to stop."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from clients.worker import load_worker
from models.core.config import TaskConfig, Value, read
from models.core.errors import UserError
from models.data.dataset import Examples
from models.images.cnn import ImageClassification
from models.state import weights_sha256
from models.task import Metrics
from server.callbacks.callback import Callback
from server.checkpoint import SERVER_ROUND, write_safetensors
from server.errors import RunFailedError
from server.evaluation import CentralEvaluation
from server.rounds import RoundLoop
from server.run_schema import RoundRecord
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults

Make = Callable[..., dict[str, Value]]


class ByLoss(ImageClassification):
    """Goes by the loss, of which less is better."""

    metric = "loss"
    maximize = False


class EvaluatesAtTheServerOnly(ImageClassification):
    """Fails on any rows but the held-out ones."""

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        if data is not self.dataset.test and data is not self.dataset.validation:
            raise ValueError("not here")
        return super().evaluate(model, data, generator)


def folder_of(config: dict[str, Value]) -> Path:
    return Path(str(config["run-dir"]))


def rows_of(config: dict[str, Value]) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (folder_of(config) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def result_of(config: dict[str, Value]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder_of(config) / "result.json").read_text(encoding="utf-8"))
    return result


def model_hash(config: dict[str, Value], name: str) -> str:
    return weights_sha256(load_file(folder_of(config) / "models" / f"{name}.safetensors"))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Value]:
    """Run two rounds in which four unequal clients evaluate on a quarter of their rows."""
    config = {
        **defaults(),
        "dataset": "digits",
        "num-clients": 4,
        "num-server-rounds": 2,
        "local-test-fraction": 0.25,
        "fraction-evaluate": 1.0,
        "run-dir": str(tmp_path_factory.mktemp("evaluated") / "run"),
    }
    run_in_process(config, num_nodes=2)
    return config


@pytest.mark.rounding
def test_client_metrics_merge_as_if_all_rows_were_in_one_place(
    evaluated: dict[str, Value], one_thread: None
) -> None:
    worker = load_worker(read(TaskConfig, evaluated), "")
    worker.model.load_state_dict(load_file(folder_of(evaluated) / "models" / "last.safetensors"))
    worker.model.eval()
    right, loss, count = 0, 0.0, 0
    for client in range(4):
        train, test = worker.examples(client)
        assert len(test) == round(0.25 * (len(train) + len(test)))
        with torch.no_grad():
            logits = worker.model(test["image"].float() / 16)
        right += int((logits.argmax(1) == test["label"]).sum())
        loss += float(nn.functional.cross_entropy(logits, test["label"], reduction="sum"))
        count += len(test)
    found = rows_of(evaluated)[2]["evaluate"]
    assert found["accuracy"] == right / count
    assert found["loss"] == pytest.approx(loss / count, rel=1e-5)
    assert found.keys() == {"accuracy", "loss"}


@pytest.mark.rounding
def test_the_server_evaluates_on_rows_that_no_client_has(
    evaluated: dict[str, Value], one_thread: None
) -> None:
    worker = load_worker(read(TaskConfig, evaluated), "")
    worker.model.load_state_dict(load_file(folder_of(evaluated) / "models" / "last.safetensors"))
    worker.model.eval()

    def accuracy(examples: Examples | None) -> float:
        assert examples is not None
        with torch.no_grad():
            logits = worker.model(examples["image"].float() / 16)
        return int((logits.argmax(1) == examples["label"]).sum()) / len(examples)

    assert rows_of(evaluated)[2]["central"]["accuracy"] == accuracy(worker.dataset.validation)
    result = result_of(evaluated)
    assert result["final"] == rows_of(evaluated)[2]["central"]
    assert result["tested"]["final"]["accuracy"] == accuracy(worker.dataset.test)
    assert (result["used"]["validation_examples"], result["tested"]["num_examples"]) == (144, 360)


class CountsItsTests(ImageClassification):
    """Says in which round its examples were evaluated."""

    asked: ClassVar[list[str]] = []

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        self.asked.append("test" if data is self.dataset.test else "validation")
        return super().evaluate(model, data, generator)


def test_test_examples_are_read_once_at_the_end(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountsItsTests, "asked", [])
    run_in_process(tiny(task="test_evaluation:CountsItsTests", num_server_rounds=3))
    assert CountsItsTests.asked == ["validation"] * 4 + ["test"] * (len(CountsItsTests.asked) - 4)
    assert CountsItsTests.asked.count("test") in (1, 2)  # the last model, and the best if that is another


def test_the_best_model_by_validation_is_tested(tiny: Make, scripted: Callable[[list[float]], None]) -> None:
    scripted([0.1, 0.5, 0.9, 0.4])
    config = tiny(num_server_rounds=3)
    run_in_process(config)
    result = result_of(config)
    assert (result["best_round"], result["best"]["accuracy"]) == (2, 0.9)
    worker = load_worker(read(TaskConfig, config), "")
    evaluation = CentralEvaluation(worker.task, worker.model, worker.config)
    for name, model in (("best", "best"), ("final", "last")):
        weights = load_file(folder_of(config) / "models" / f"{model}.safetensors")
        assert evaluation.test_metrics(weights) == result["tested"][name]
    assert result["tested"]["best"] != result["tested"]["final"]


def test_a_best_model_that_is_another_rounds_is_not_tested(
    tiny: Make, scripted: Callable[[list[float]], None], caplog: pytest.LogCaptureFixture
) -> None:
    scripted([0.1, 0.5, 0.9, 0.4])
    config = tiny(num_server_rounds=3, callbacks="test_evaluation:SpoilsTheBest")
    run_in_process(config)
    assert result_of(config)["tested"]["best"] == {}
    assert "best.safetensors is not the model of round 2 (1): it is not tested" in caplog.text


class SpoilsTheBest(Callback):
    """Puts another round's model in the place of the best one."""

    def on_round_end(self, record: RoundRecord) -> None:
        if record.server_round == 3:
            write_safetensors(self.best, load_file(self.best), {SERVER_ROUND: "1"})

    def on_run_start(self, run: RoundLoop) -> None:
        self.best = run.folder.path / "models" / "best.safetensors"


def test_without_validation_examples_the_test_examples_choose(tiny: Make) -> None:
    config = tiny(validation_fraction=0.0)
    run_in_process(config)
    result = result_of(config)
    assert result["tested"] is None
    assert result["final"] == rows_of(config)[-1]["central"]


class NeverEnds(ImageClassification):
    """Is worth nothing finite on the test examples."""

    def ratios(self, metrics: Metrics) -> dict[str, float]:
        if metrics["loss"][1] == len(self.dataset.test):
            return {"accuracy": math.nan}
        return super().ratios(metrics)


def test_a_test_that_is_not_finite_is_no_success(tiny: Make) -> None:
    config = tiny(task="test_evaluation:NeverEnds")
    with pytest.raises(RunFailedError, match="accuracy of the last model is nan on the test examples"):
        run_in_process(config)
    assert result_of(config)["status"] == "failed"


@pytest.mark.rounding
def test_round_0_is_the_initial_model(evaluated: dict[str, Value]) -> None:
    first = rows_of(evaluated)[0]
    assert first.keys() == {"server_round", "central", "seconds"}
    assert first["server_round"] == 0
    assert first["central"]["loss"] == pytest.approx(2.3, abs=0.05)  # ln 10


def test_clients_whose_rows_are_too_few_to_hold_any_back_do_not_end_the_run(tiny: Make) -> None:
    config = tiny(
        num_clients=60, alpha=0.1, num_server_rounds=1, local_test_fraction=0.1, fraction_evaluate=1.0
    )
    worker = load_worker(read(TaskConfig, config), "")
    sizes = [len(worker.examples(client)[1]) for client in range(60)]
    assert 0 in sizes, "every client has rows of its own to evaluate on: the test shows nothing"
    run_in_process(config)
    accuracy = rows_of(config)[1]["evaluate"]["accuracy"]
    assert accuracy * sum(sizes) == pytest.approx(round(accuracy * sum(sizes)))


def test_a_fraction_of_the_clients_evaluates(tiny: Make, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny(local_test_fraction=0.2, fraction_evaluate=0.5, num_server_rounds=1)
    caplog.set_level("INFO", "flwr")
    run_in_process(config)
    assert "configure_evaluate: Sampled 2 nodes (out of 4)" in caplog.text
    assert rows_of(config)[1]["evaluate"].keys() == {"accuracy", "loss"}


def test_clients_that_cannot_evaluate_are_named_and_do_not_end_the_run(
    tiny: Make, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(
        task="test_evaluation:EvaluatesAtTheServerOnly",
        local_test_fraction=0.2,
        fraction_evaluate=1.0,
        num_server_rounds=1,
    )
    run_in_process(config)
    assert rows_of(config)[1]["evaluate"] == {}
    for client in range(4):
        assert f"Round 1: client {client} failed to evaluate: ValueError: not here" in caplog.text


def test_evaluating_on_clients_needs_rows_to_evaluate_on(tiny: Make) -> None:
    with pytest.raises(
        UserError, match=r"local-test-fraction must be > 0 when fraction-evaluate is, got 0\.0"
    ):
        run_in_process(tiny(fraction_evaluate=0.5))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Let the server find these accuracies, or losses, in this order."""

    def script(values: list[float]) -> None:
        found = iter(values)
        monkeypatch.setattr(
            CentralEvaluation, "metrics", lambda self, weights: {self.task.metric: next(found)}
        )

    return script


@pytest.mark.parametrize(
    ("task", "values", "patience", "stopped", "best_round"),
    [
        # The first value is the initial model's.
        ("cnn", [0.1, 0.5, 0.4, 0.45, 0.9], 2, 3, 1),
        ("cnn", [0.1, 0.5, 0.5, 0.6, 0.6, 0.6], 2, 5, 3),  # as good is not better
        ("cnn", [0.9, 0.1, 0.2], 2, 2, 0),
        ("test_evaluation:ByLoss", [2.0, 1.0, 1.5, 0.5, 0.6, 0.7], 2, 5, 3),
        ("cnn", [0.1, 0.5, 0.4, 0.3], 1, 2, 1),
    ],
)
def test_patience(
    tiny: Make,
    scripted: Callable[[list[float]], None],
    task: str,
    values: list[float],
    patience: int,
    stopped: int,
    best_round: int,
) -> None:
    scripted(values)
    config = tiny(task=task, patience=patience, num_server_rounds=9)
    run_in_process(config)
    result = result_of(config)
    metric = result["metric"]
    assert (result["status"], result["server_round"]) == ("stopped", stopped)
    assert result["reason"] == f"no better {metric} in {patience} evaluations"
    assert (result["best_round"], result["best"]) == (best_round, {metric: values[best_round]})
    assert result["final"] == {metric: values[stopped]}
    assert [row["server_round"] for row in rows_of(config)] == list(range(stopped + 1))


def test_the_best_model_is_that_of_the_best_round(
    tiny: Make, tmp_path: Path, scripted: Callable[[list[float]], None]
) -> None:
    hashes = []
    for last in (1, 2, 3):
        scripted([0.1, 0.3, 0.8, 0.5])
        config = tiny(num_server_rounds=last, run_dir=str(tmp_path / f"{last}"))
        run_in_process(config)
        hashes.append((model_hash(config, "best"), model_hash(config, "last")))
        assert hashes[-1][1] == result_of(config)["weights_sha256"]
    of_round = [last for _, last in hashes]
    assert len(set(of_round)) == 3
    assert [best for best, _ in hashes] == [of_round[0], of_round[1], of_round[1]]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_central_metric_that_is_not_finite_ends_the_run(
    tiny: Make, scripted: Callable[[list[float]], None], wrong: float
) -> None:
    scripted([0.4, 0.5, wrong, 0.9])
    config = tiny(num_server_rounds=3)
    reason = f"accuracy is {wrong} on the validation examples after round 2: training diverged"
    with pytest.raises(RunFailedError, match=reason):
        run_in_process(config)
    result = result_of(config)
    assert (result["status"], result["best_round"], result["best"]) == ("failed", 1, {"accuracy": 0.5})
    assert reason in result["reason"]
    assert [row["central"] for row in rows_of(config)] == [{"accuracy": 0.4}, {"accuracy": 0.5}, {}]


def test_patience_counts_over_a_resume(
    tiny: Make, tmp_path: Path, scripted: Callable[[list[float]], None]
) -> None:
    scripted([0.1, 0.5, 0.4])
    config = tiny(num_server_rounds=2, patience=2)
    run_in_process(config)
    assert result_of(config)["status"] == "completed"
    best = model_hash(config, "best")
    scripted([0.45, 0.9])
    run_in_process({**config, "num-server-rounds": 9, "resume": True})
    result = result_of(config)
    assert (result["status"], result["server_round"], result["best_round"]) == ("stopped", 3, 1)
    assert model_hash(config, "best") == best


@pytest.mark.parametrize(
    ("every", "rounds", "evaluated_in"),
    [(1, 3, [0, 1, 2, 3]), (2, 5, [0, 2, 4, 5]), (2, 4, [0, 2, 4]), (7, 3, [0, 3]), (0, 3, [3])],
)
def test_evaluate_every(tiny: Make, every: int, rounds: int, evaluated_in: list[int]) -> None:
    config = tiny(
        num_clients=2,
        clients_per_round=1,
        evaluate_every=every,
        num_server_rounds=rounds,
        local_test_fraction=0.1,
        fraction_evaluate=0.5,
    )
    run_in_process(config)
    rows = rows_of(config)
    assert [row["server_round"] for row in rows if row["central"]] == evaluated_in
    assert [row["server_round"] for row in rows if row.get("evaluate")] == list(range(1, rounds + 1))
    assert result_of(config)["final"] == rows[-1]["central"]


def test_patience_counts_evaluations_and_not_rounds(
    tiny: Make, scripted: Callable[[list[float]], None]
) -> None:
    scripted([0.1, 0.5, 0.4, 0.3])
    config = tiny(num_clients=2, evaluate_every=2, patience=1, num_server_rounds=9)
    run_in_process(config)
    assert (result_of(config)["status"], result_of(config)["server_round"]) == ("stopped", 4)
