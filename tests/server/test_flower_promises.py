"""Any strategy that Flower runs is run as Flower would run it, or refused before the run by name."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from quadratic import CURVATURE, MINIMUM
from safetensors.torch import load_file

from models.core.config import Value
from models.core.errors import UserError
from server.errors import RunFailedError
from server.plan import make_plan
from server.requests import Requests
from simulations.report.page import write_report
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]
Rest = Callable[..., float]
START = 3.0


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def small(make: Make, name: str, **overrides: Any) -> dict[str, Value]:
    """Return the config of a run in which clients evaluate too."""
    return make(
        strategy=f"flower_strategies:{name}",
        num_clients=8,
        examples_per_client=40,
        local_test_fraction=0.2,
        fraction_evaluate=0.5,
        **overrides,
    )


def run(config: dict[str, Value], num_nodes: int = 2) -> list[dict[str, Any]]:
    run_in_process(config, num_nodes)
    return rows_of(Path(str(config["run-dir"])))[1:]


@pytest.mark.parametrize(
    ("name", "clients"),
    [
        ("OwnConfig", [0, 1, 2, 3]),
        ("OwnConfigCopy", [0, 1, 2, 3]),
        ("ExtraRecord", [*range(8)]),
        ("OwnMetrics", [*range(8)]),
        ("PowerOfChoice", None),
        ("Remembers", [*range(8)]),
        ("WithReplacement", None),
    ],
)
def test_what_flower_runs_is_run(tiny: Make, name: str, clients: list[int] | None) -> None:
    rows = run(small(tiny, name))
    assert len(rows) == 2
    for row in rows:
        assert row["failures"] == []
        assert clients is None or row["clients"] == clients


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Start", "strategy Start overrides start, which nobody calls: .* or in a callback"),
        ("CustomAction", "strategy CustomAction sends messages of type 'train.warmup', .* no such action"),
        ("Async", r"strategy Async calls grid.push_messages, .*: call grid.send_and_receive, or return"),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_run(tiny: Make, name: str, why: str) -> None:
    config = small(tiny, name)
    with pytest.raises(UserError, match=rf"^{why}") as error:
        run_in_process(config)
    assert "\n" not in str(error.value)
    assert not (Path(str(config["run-dir"])) / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("client", "strategy Wrong addresses client 7, and there are 4, from 0 on"),
        (
            "part",
            r"strategy Wrong sends clients a part of the weights: classifier.0.bias, .* more are missing",
        ),
        ("no weights", "strategy Wrong sends a message without weights"),
        ("pull", "strategy Wrong calls grid.pull_messages"),
        ("evaluate_fn", "strategy Wrong has an evaluate_fn, which nobody calls: .* _evaluate_fn"),
    ],
)
def test_what_clients_cannot_be_asked_is_refused_before_the_run(tiny: Make, wrong: str, why: str) -> None:
    config = tiny(strategy="asking:Wrong", strategy_options=f"wrong = '{wrong}'")
    with pytest.raises(UserError, match=rf"^{why}"):
        run_in_process(config)
    assert not (Path(str(config["run-dir"])) / "metrics.jsonl").exists()


def test_a_part_of_the_weights_is_told_by_its_names(tiny: Make) -> None:
    why = "^Partial returned in round 1 a part of the weights: features.0.bias, .* and 1 more are missing$"
    with pytest.raises(RunFailedError, match=why):
        run_in_process(small(tiny, "Partial"))


def test_weights_of_another_shape_are_told(rest: Rest) -> None:
    with pytest.raises(
        RunFailedError, match=r"^Wrong returned in round 1 w of shape \[2, 3\], and .* \[1\]$"
    ):
        rest("asking:Wrong", rounds=1, strategy_options="wrong = 'shape'")


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian", "Ditto"])
def test_a_weight_that_nobody_replies_is_refused_before_the_run(tiny: Make, strategy: str) -> None:
    config = tiny(strategy=strategy, strategy_options="weighted_by_key = 'nope'")
    with pytest.raises(UserError, match=rf"^strategy {strategy} weights clients by 'nope' .* num-examples"):
        run_in_process(config)
    assert not (Path(str(config["run-dir"])) / "metrics.jsonl").exists()


def test_a_loss_that_nobody_tells_is_refused_before_the_run(tiny: Make) -> None:
    """A GAN has two, of which the strategy must be told one."""
    config = tiny(task="gan", strategy="QFedAvg")
    said = r"^strategy QFedAvg computes with 'received-loss' .*, received-discriminator-loss, received-gen"
    with pytest.raises(UserError, match=said):
        run_in_process(config)
    make_plan({**config, "strategy-options": "train_loss_key = 'generator-loss'"})


def test_losses_may_weigh_clients(tiny: Make) -> None:
    assert len(run(tiny(strategy_options="weighted_by_key = 'loss'"))) == 2


def test_a_weight_that_a_rule_could_reply_is_missed_by_its_name(tiny: Make) -> None:
    config = tiny(strategy="weighing:Weighing", strategy_options="weighted_by_key = 'nope'")
    with pytest.raises(RunFailedError, match="no metric 'nope' to weight by among loss, num-examples, worth"):
        run_in_process(config)


@pytest.mark.parametrize("strategy", ["Scaffold", "FedDyn"])
def test_fixed_weights_are_of_clients_or_of_examples(tiny: Make, strategy: str) -> None:
    config = tiny(strategy=strategy, strategy_options="weighted_by_key = 'nope'")
    with pytest.raises(
        UserError, match="weighted_by_key must be 'num-clients' or 'num-examples', got 'nope'"
    ):
        run_in_process(config)


def descend(client: int, steps: int, rate: float, start: float = START) -> float:
    """Return where a client ends that takes these steps on its parabola."""
    a, b = CURVATURE[client], MINIMUM[client]
    return b + (1 - rate * a) ** steps * (start - b)


ENGINES = [("loop", 1), ("loop", 2), ("stacked", 1)]


@pytest.mark.parametrize(("engine", "num_nodes"), ENGINES)
@pytest.mark.parametrize("strategy", ["Told", "Summed"])
def test_each_client_works_as_it_is_told(rest: Rest, strategy: str, engine: str, num_nodes: int) -> None:
    """A fresh record for each client, under a key of its own: step sizes, whole epochs and parts of one."""
    told = "told = {0 = {learning-rate = 0.05, local-epochs = 2}, 1 = {local-epochs = 0.25}}"
    found = rest(f"asking:{strategy}", rounds=1, num_nodes=num_nodes, engine=engine, strategy_options=told)
    assert found == pytest.approx((descend(0, 40, 0.05) + descend(1, 5, 0.1)) / 2, abs=1e-6)


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_clients_that_are_told_the_same_in_records_of_their_own(rest: Rest, engine: str) -> None:
    words = "{learning-rate = 0.05, local-epochs = 1.15}"
    found = rest(
        "asking:Told", rounds=1, engine=engine, strategy_options=f"told = {{0 = {words}, 1 = {words}}}"
    )
    assert found == pytest.approx((descend(0, 23, 0.05) + descend(1, 23, 0.05)) / 2, abs=1e-6)


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_a_batch_has_the_size_that_its_client_is_told(tiny: Make, tmp_path: Path, engine: str) -> None:
    common = {"num_clients": 1, "examples_per_client": 40, "num_server_rounds": 1, "engine": engine}
    ends = []
    for name, given in {
        "told": {
            "strategy": "asking:Told",
            "strategy_options": "told = {0 = {batch-size = 8, learning-rate = 0.01, local-epochs = 2}}",
        },
        "run": {"batch_size": 8, "learning_rate": 0.01, "local_epochs": 2},
    }.items():
        run_in_process(tiny(run_dir=str(tmp_path / name), **common, **given))
        ends.append(load_file(tmp_path / name / "models" / "last.safetensors"))
    assert all(bool((ends[0][name] == ends[1][name]).all()) for name in ends[0])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("local-epochs = 0", "local-epochs must be > 0, got 0.0"),
        ("learning-rate = -1.0", "learning-rate must be > 0, got -1.0"),
        ("batch-size = 0.5", "batch-size must be a whole number, got 0.5"),
        ("local-epochs = 'two'", "local-epochs must be a number, got 'two'"),
        ("learning-rate = inf", "learning-rate must be > 0 and finite, got inf"),
    ],
)
def test_what_a_client_is_told_is_checked_before_the_run(tiny: Make, words: str, why: str) -> None:
    config = tiny(strategy="asking:Told", strategy_options=f"told = {{1 = {{{words}}}}}")
    with pytest.raises(UserError, match=rf"^strategy Told, to client 1: {why}$"):
        run_in_process(config)


def test_words_that_nothing_heeds_are_told_once(tiny: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    run_in_process(small(tiny, "OwnConfig"))
    said = [record.getMessage() for record in caplog.records if "nothing heeds" in record.getMessage()]
    assert said == [
        "OwnConfig tells clients lr = 0.01, which nothing heeds: did you mean learning-rate? they heed "
        "learning-rate, local-epochs, batch-size, and what a local rule reads"
    ]


def test_words_that_a_rule_reads_are_no_surprise(tiny: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    run_in_process(tiny(strategy="FedProx", strategy_options="proximal_mu = 0.1", num_server_rounds=1))
    assert "nothing heeds" not in caplog.text


def test_records_beside_the_weights_reach_the_rule(rest: Rest, caplog: pytest.LogCaptureFixture) -> None:
    """The rule adds 0.5 * 2 to each gradient, which moves each parabola's minimum to b - 1 / a."""
    caplog.set_level(logging.WARNING)
    found = rest("asking:Records", rounds=1, task_options="steps = 3")
    ends = []
    for a, b in zip(CURVATURE, MINIMUM, strict=True):
        minimum = b - 1 / a
        ends.append(minimum + (1 - 0.1 * a) ** 3 * (START - minimum))
    assert found == pytest.approx(sum(ends) / 2, abs=1e-6)
    assert "read-by-none = 1, which nothing heeds" in caplog.text
    assert "strength" not in caplog.text


def test_what_a_strategy_leaves_in_its_config_is_there_in_the_next_round(rest: Rest) -> None:
    w = START
    for rate in (0.1, 0.05, 0.025):
        w = (descend(0, 3, rate, w) + descend(1, 3, rate, w)) / 2
    assert rest("asking:Decaying", rounds=3, task_options="steps = 3") == pytest.approx(w, abs=1e-6)


@pytest.mark.parametrize("name", ["asking:Decaying", "flower_strategies:Remembers"])
def test_it_is_there_after_a_resume_too(tiny: Make, tmp_path: Path, name: str) -> None:
    common = {"strategy": name, "num_clients": 2, "examples_per_client": 40}
    run_in_process(tiny(**common, num_server_rounds=3, run_dir=str(tmp_path / "whole")))
    halves = tiny(**common, num_server_rounds=1, run_dir=str(tmp_path / "halves"))
    run_in_process(halves)
    run_in_process({**halves, "num-server-rounds": 3, "resume": True})
    ends = [
        json.loads((tmp_path / run / "result.json").read_text(encoding="utf-8"))
        for run in ("whole", "halves")
    ]
    assert ends[0]["weights_sha256"] == ends[1]["weights_sha256"]


@pytest.mark.parametrize(("engine", "num_nodes"), ENGINES)
@pytest.mark.parametrize("strategy", ["Drawn", "DrawnAndSummed"])
@pytest.mark.parametrize("drawn", [[0, 1, 0, 0], [1, 1], [0, 1, 1, 1, 1, 1, 1]])
def test_a_client_counts_as_often_as_it_is_asked(
    rest: Rest, tmp_path: Path, strategy: str, drawn: list[int], engine: str, num_nodes: int
) -> None:
    found = rest(
        f"asking:{strategy}",
        rounds=1,
        num_nodes=num_nodes,
        engine=engine,
        strategy_options=f"drawn = {drawn}",
    )
    ends = [descend(client, 20, 0.1) for client in drawn]
    assert found == pytest.approx(sum(ends) / len(ends), abs=1e-6)
    (row,) = rows_of(tmp_path / "run-0")
    assert row["clients"] == sorted(drawn)
    assert row["train"]["num-examples"] == len(drawn)


@pytest.mark.parametrize("strategy", ["Drawn", "DrawnAndSummed"])
def test_statistics_count_as_often_as_their_client(tiny: Make, tmp_path: Path, strategy: str) -> None:
    ends = []
    for name, drawn in {"first": [0], "second": [1], "both": [0, 1, 0, 0]}.items():
        config = tiny(
            strategy=f"asking:{strategy}",
            strategy_options=f"drawn = {drawn}",
            task_options="norm = 'batch'",
            num_server_rounds=1,
            run_dir=str(tmp_path / name),
        )
        (row,) = run(config)
        weights = load_file(tmp_path / name / "models" / "last.safetensors")
        ends.append((row["train"]["num-examples"], weights["features.1.running_mean"].double()))
    (first, first_mean), (second, second_mean), (all_of_them, mean) = ends
    assert all_of_them == 3 * first + second
    assert torch.allclose(mean, (3 * first * first_mean + second * second_mean) / all_of_them, atol=1e-6)


@pytest.mark.parametrize("strategy", ["Drawn", "DrawnAndSummed"])
def test_a_client_that_is_asked_for_two_things_does_both(rest: Rest, tmp_path: Path, strategy: str) -> None:
    """Client 0 twice for one epoch and once for two, client 1 once."""
    options = "drawn = [0, 1, 0, 0], epochs = [1, 1, 2, 1]"
    found = rest(f"asking:{strategy}", rounds=1, strategy_options=options)
    ends = [2 * descend(0, 20, 0.1), descend(0, 40, 0.1), descend(1, 20, 0.1)]
    assert found == pytest.approx(sum(ends) / 4, abs=1e-6)
    assert rows_of(tmp_path / "run-0")[0]["clients"] == [0, 0, 0, 1]


def test_that_a_client_counts_twice_is_told(rest: Rest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rest("asking:Drawn", rounds=2, strategy_options="drawn = [0, 1, 0]")
    said = [each.getMessage() for each in caplog.records if "asks client" in each.getMessage()]
    assert said == ["Drawn asks client 0 2 times: it trains once and counts 2 times"]


def test_a_client_that_fails_is_an_error_for_each_message(tiny: Make) -> None:
    config = tiny(
        task="faulty:FaultyCnn",
        task_options="raise_at = [1, 2]",
        strategy="asking:Drawn",
        strategy_options="drawn = [2, 0, 2]",
        num_server_rounds=1,
    )
    (row,) = run(config)
    assert row["clients"] == [0]
    assert [each["client"] for each in row["failures"]] == [2]


def test_noise_is_not_made_for_clients_that_count_twice(tiny: Make) -> None:
    options = (
        "strategy = {name = 'asking:DrawnAndSummed', drawn = [0, 1, 0]}, "
        "clipping_norm = 1.0, noise_multiplier = 1.0"
    )
    config = tiny(
        strategy="DifferentialPrivacyServerSideFixedClipping",
        strategy_options=options,
        num_clients=4,
        clients_per_round=3,
    )
    with pytest.raises(ValueError, match="DrawnAndSummed asked one of them several times"):
        run_in_process(config)


def test_power_of_choice_trains_those_with_the_highest_losses(tiny: Make) -> None:
    """Six candidates are asked for their losses, and are sent the weights for it; three of them train."""
    rows = run(small(tiny, "PowerOfChoice"))
    plain = run(small(tiny, "ExtraRecord", run_dir=str(tiny()["run-dir"]) + "-plain"))
    for row, other in zip(rows, plain, strict=True):
        assert len(row["clients"]) == 3
        # Two nodes get the weights three times: for the losses, for training, for the evaluation afterwards.
        assert row["bytes"]["down"] * 2 == other["bytes"]["down"] * 3


def test_failures_of_a_question_of_the_strategys_own_are_told(tiny: Make) -> None:
    config = tiny(
        task="faulty:FaultyCnn",
        task_options="raise_at = [1, 2]",
        strategy="asking:Unheard",
        num_server_rounds=1,
    )
    (row,) = run(config)
    assert row["clients"] == [0, 1, 3]
    assert row["failures"] == [{"client": 2, "error": "ValueError: a bad batch"}]


def test_what_a_strategy_makes_of_metrics_is_kept_and_shown(tiny: Make) -> None:
    config = small(tiny, "OwnMetrics")
    folder = Path(str(config["run-dir"]))
    for row in run(config):
        losses = row["lists"]["train/losses"]
        assert len(losses) == 8
        assert row["train"]["loss-spread"] == max(losses) - min(losses)
        found = row["by_client"]["accuracy"]
        assert row["evaluate"]["worst-accuracy"] == pytest.approx(min(found), abs=1e-6)
        assert 0 <= row["evaluate"]["accuracy"] <= 1  # merged from counts, as before
    write_report([folder], folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "worst-accuracy" in page
    assert "loss-spread" in page


def test_a_record_that_asks_for_an_evaluation_first_is_checked_for_the_training_too() -> None:
    told = RecordDict({"arrays": ArrayRecord({}), "config": ConfigRecord({"local-epochs": -1.0})})
    messages = [Message(told, client, kind) for client in (0, 1) for kind in ("evaluate", "train")]
    with pytest.raises(UserError, match=r"to client 0: local-epochs must be > 0, got -1\.0"):
        Requests("Told", num_clients=2).read(messages)
