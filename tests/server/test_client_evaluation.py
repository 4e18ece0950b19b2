"""What clients find on their own examples: under every strategy, and where a metric is undefined on some."""

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from places import CASES
from weighing import WORTH, Weighing

from clients.loop import mean_losses
from clients.worker import load_worker
from models.core.config import TaskConfig, Value, read
from models.task import merge_metrics
from server.client_metrics import as_flower_wants, metrics_by_client, undefined
from simulations.runtime.in_process import run_in_process
from strategies.declaration import weight_keys
from strategies.privacy.local_dp import LocalDP
from strategies.registry import STRATEGIES
from strategies.wire.identity import let_messages_be_made
from strategies.wire.reply import METRICS, SUMS
from strategies.wire.reply_metrics import drop_partial_metrics, mean_metrics

Make = Callable[..., dict[str, Value]]
EVALUATED = {
    "fraction_evaluate": 1.0,
    "local_test_fraction": 0.25,
    "evaluate_every": 0,
    "num_server_rounds": 1,
}


def rows_of(config: dict[str, Value]) -> list[dict[str, Any]]:
    run_in_process(config)
    lines = (Path(str(config["run-dir"])) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("FedAvg", ""),
        ("FedMedian", ""),
        ("Scaffold", "any_optimizer = true"),
        ("FedDyn", ""),
        ("LocalDP", "strategy = 'FedDyn', clipping_norm = 1.0, noise_multiplier = 0.0"),
        ("weighing:Weighing", ""),
    ],
)
def test_clients_evaluate_under_every_weight(tiny: Make, strategy: str, options: str) -> None:
    """The mean counts the examples that were evaluated on, whatever the clients' training counts by."""
    config = tiny(strategy=strategy, strategy_options=options, **EVALUATED)
    (row,) = rows_of(config)
    assert row["by_client"]["client"] == [0, 1, 2, 3]
    worker = load_worker(read(TaskConfig, config), "")
    sizes = [len(worker.examples(client)[1]) for client in range(4)]
    assert len(set(sizes)) > 1
    right = row["by_client"]["accuracy"]
    wanted = sum(n * value for n, value in zip(sizes, right, strict=True)) / sum(sizes)
    assert row["evaluate"]["accuracy"] == pytest.approx(wanted, abs=1e-5)


def reply(client: int, metrics: dict[str, float], sums: dict[str, list[float]]) -> Message:
    let_messages_be_made()
    asked = Message(RecordDict({"arrays": ArrayRecord()}), client, "evaluate")
    content = RecordDict({METRICS: MetricRecord({**metrics}), SUMS: ConfigRecord({**sums})})
    return Message(content, reply_to=asked)


def test_a_strategy_sees_what_all_clients_have_weighted_by_their_examples() -> None:
    strategy = Weighing()
    replies = [
        reply(0, {"num-examples": 3, "loss": 1.0, "ratio": 8.0}, {"loss": [3.0, 3.0]}),
        reply(1, {"num-examples": 1, "loss": 5.0}, {"loss": [5.0, 1.0]}),
        reply(2, {"num-examples": 0}, {}),  # it has no examples to evaluate on
    ]
    strategy.aggregate_evaluate(1, as_flower_wants(replies, weight_keys(strategy)))
    assert [dict(each.content.metric_records[METRICS]) for each in strategy.seen] == [
        {"num-examples": 3, "loss": 1.0, WORTH: 3},
        {"num-examples": 1, "loss": 5.0, WORTH: 1},
    ]
    assert strategy.mean is not None
    assert strategy.mean["loss"] == 2.0


def test_a_wrapped_strategys_weight_is_found() -> None:
    wrapper = LocalDP(Weighing(), 10, 1, clipping_norm=1.0, noise_multiplier=1.0)
    assert weight_keys(wrapper) == {WORTH}
    assert weight_keys(STRATEGIES["FedAvg"]()) == {"num-examples"}  # type: ignore[operator]


def test_a_client_counts_for_the_metrics_that_it_has() -> None:
    parts = [{"a": (6.0, 2.0), "b": (1.0, 0.0)}, {"a": (math.nan, 0.0), "b": (8.0, 4.0)}]
    assert merge_metrics(parts) == {"a": (6.0, 2.0), "b": (8.0, 4.0)}
    assert merge_metrics([{"a": (0.0, 0.0)}]) == {"a": (0.0, 0.0)}


def test_losses_are_means_over_terms_and_absent_without_any() -> None:
    assert mean_losses({"a": 6.0, "b": 0.0}, {"a": 3, "b": 0}, seen=4) == {"a": 2.0}


def test_metrics_in_training_that_only_some_clients_have() -> None:
    def content(**metrics: float) -> RecordDict:
        return RecordDict({METRICS: MetricRecord({name.replace("_", "-"): v for name, v in metrics.items()})})

    def three() -> list[RecordDict]:
        return [
            content(num_examples=1, worth=1.0, loss=4.0, own=1.0),
            content(num_examples=3, worth=1.0, loss=8.0),
            content(num_examples=5, worth=1.0),
        ]

    assert dict(mean_metrics(three(), "num-examples")) == {
        "num-examples": 9, "worth": 1.0, "loss": 7.0, "own": 1.0,
    }  # fmt: skip
    assert dict(mean_metrics(three(), "worth"))["loss"] == 6.0
    contents = three()
    assert drop_partial_metrics(contents, "num-examples") == {"loss": 7.0, "own": 1.0}
    assert {tuple(each.metric_records[METRICS]) for each in contents} == {("num-examples", "worth")}
    assert drop_partial_metrics(contents, "num-examples") == {}


def case(tmp_path: Path, scenario: str, **overrides: Value) -> list[dict[str, Any]]:
    from simulations.scenario import defaults

    given = {name.replace("_", "-"): value for name, value in overrides.items()}
    folder = {"data-dir": str(CASES), "run-dir": str(tmp_path / "run"), "trackers": ""}
    return rows_of({**defaults(), **tomllib.loads(scenario), **folder, **given})


FLAT = """
task = "lstm-forecast"
task-options = "hidden_size = 8"
num-clients = 3
partitioner = "natural"
num-server-rounds = 2
local-test-fraction = 0.2
fraction-evaluate = 1.0
seed = 1
"""


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian", "Scaffold"])
@pytest.mark.parametrize("data", ["flat.csv", "flat_tail.csv"])
def test_a_constant_series_has_no_ratio_to_persistence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: str, strategy: str
) -> None:
    options = "any_optimizer = true" if strategy == "Scaffold" else ""
    rows = case(tmp_path, FLAT, dataset=f"csv:{data}", strategy=strategy, strategy_options=options)
    for row in rows[1:]:
        assert row["failures"] == []
        found = row["by_client"]
        assert [value is None for value in found["rmse-over-persistence"]] == [False, False, True]
        # The client counts in what it has: of three clients with one number of windows each ...
        squares = sum(value**2 for value in found["rmse"]) / 3
        assert row["evaluate"]["rmse"] == pytest.approx(math.sqrt(squares), rel=1e-4)
        # ... and in the ratio the other two count alone.
        over, under = (sum(value**2 for value in found[name][:2]) for name in ("rmse", "persistence-rmse"))
        assert row["evaluate"]["rmse-over-persistence"] == pytest.approx(math.sqrt(over / under), rel=1e-4)
    said = "Round 1: rmse-over-persistence is undefined on the examples of clients 2, which it leaves out"
    assert caplog.messages.count(said) == 1
    assert not any("Round 2: rmse-over" in message for message in caplog.messages)


SENTENCES = """
batch-size = 8
partitioner = "natural"
num-server-rounds = 2
local-test-fraction = 0.2
fraction-evaluate = 1.0
seed = 1
"""


@pytest.mark.parametrize("strategy", ["FedAvg", pytest.param("FedMedian", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("data", "num_clients"), [("conll_few", 6), ("conll_noent", 3)])
@pytest.mark.parametrize("task", ["masked-lm", "ner"])
def test_a_client_without_masked_tokens_or_entities(
    tmp_path: Path, task: str, data: str, num_clients: int, strategy: str
) -> None:
    rows = case(
        tmp_path, SENTENCES, task=task, dataset=f"conll:{data}", num_clients=num_clients, strategy=strategy
    )
    for row in rows[1:]:
        assert row["failures"] == []
        assert row["by_client"]["client"] == list(range(num_clients))
        assert math.isfinite(row["evaluate"]["loss"])
    metric = {"masked-lm": "probe-accuracy", "ner": "recall"}[task]
    if data == "conll_noent":
        assert [value is None for value in rows[1]["by_client"][metric]] == [False, True, False]


def test_a_metric_that_no_client_has_is_absent() -> None:
    class Mean:
        def ratios(self, metrics: Any) -> dict[str, float]:
            return {name: total / weight for name, (total, weight) in metrics.items() if weight}

    contents = {
        4: reply(4, {}, {"a": [1.0, 2.0], "b": [0.0, 0.0]}).content,
        7: reply(7, {}, {"a": [0.0, 0.0], "b": [0.0, 0.0]}).content,
    }
    columns = metrics_by_client(Mean(), contents)  # type: ignore[arg-type]
    assert columns == {"client": [4, 7], "a": [0.5, None]}
    assert undefined(columns) == {"a": [7]}
