"""One node replies nonsense: its clients have failed, and the others' round goes on."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from scripted_grid import Answer, ScriptedGrid

from models.core.config import Value
from server.cohort import CohortGrid, CohortResult
from server.metric_checks import Expected
from server.node_registry import NodeRegistry
from server.reply_checks import Asked, checked_reply
from server.requests import Request, Wave
from simulations.runtime.in_process import run_in_process
from strategies.algorithms.feddyn import FedDyn
from strategies.declaration import declaration_of
from strategies.privacy.central_dp import DifferentialPrivacyClientSideFixedClipping
from strategies.wire.arrays import to_arrays, to_record
from strategies.wire.exact_sum import ExactSum
from strategies.wire.node import NodeDescription
from strategies.wire.records import PLAN
from strategies.wire.reply import SUMS, ClientReply, NodeReply
from strategies.wire.request import RoundInfo, unpack_requests

Change = Callable[[RecordDict], RecordDict | None]
Arrays = dict[str, np.ndarray]
ONES = np.ones(2, np.float32)
COUNTED = {"num-examples": 2}


def node(
    partition: int, change: Change | None = None, arrays: Arrays | None = None, metrics: dict | None = None
) -> Answer:
    """Return one of two nodes, whose clients reply twos; what it sends is changed, or is something else."""

    def answer(message: Message) -> RecordDict:
        if message.metadata.message_type == "query":
            return NodeDescription(
                partition_id=partition, num_partitions=2, own_data=False, data="", state=()
            ).pack()
        info, requests = unpack_requests(message.content)
        reply = NodeReply(total=ExactSum() if info.weighted_by else None, weighted_by=info.weighted_by)
        for request in requests:
            told = {"num-examples": 2, "num-clients": 1.0, "received-loss": 1.0} | (metrics or {})
            content = RecordDict({"metrics": MetricRecord({k: v for k, v in told.items() if v is not None})})
            if message.metadata.message_type == "evaluate":
                content[SUMS] = ConfigRecord({"accuracy": [1.0, 2.0]})
                reply.add(request.client, content)
            else:
                reply.add(request.client, content, {"w": 2 * ONES} if arrays is None else arrays)
        packed = reply.pack()
        return (change(packed) if change else None) or packed

    return answer


def exchange(
    wrong: Answer,
    weighted_by: str = "",
    message_type: str = "train",
    ranges: dict[str, tuple[float, float]] | None = None,
) -> CohortResult:
    """Ask clients 0 to 4, of which 1 and 3 live on the node that answers wrongly."""
    grid, registry = ScriptedGrid({7: node(0), 8: wrong}), NodeRegistry(5, "", (), interchangeable=False)
    registry.wait_for_all(grid, timeout=5)

    def ratios(sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        return {"accuracy": sums["accuracy"][0] / sums["accuracy"][1]}

    expected = Expected({"num-clients"}, ["received-loss"], ratios, ranges or {})  # type: ignore[arg-type]
    cohort = CohortGrid(grid, registry, expected=expected)
    content = RecordDict({"arrays": to_record({"w": ONES}), "config": ConfigRecord({})})
    messages = [Message(content, client, message_type) for client in range(5)]
    return cohort.exchange(messages, RoundInfo(1, 0, "/state", weighted_by), 60.0)


def check_only_that_node_failed(result: CohortResult, why: str) -> None:
    assert list(result.clients) == [0, 2, 4]
    assert {failure.client: why in failure.error for failure in result.failures} == {1: True, 3: True}, (
        result.failures
    )
    assert math.isfinite(result.node_seconds)
    for reply in result.replies:
        if reply.has_content() and "arrays" in reply.content:
            assert to_arrays(reply.content.array_records["arrays"])["w"].tolist() == [2.0, 2.0]


def change_metrics(content: RecordDict, metrics: dict) -> None:
    """Let all clients of a message tell these metrics; None takes one away."""
    plan = content.config_records[PLAN]
    told = json.loads(str(plan["metrics"]))
    for _, of_client in told:
        of_client |= metrics
        for name in [name for name, value in metrics.items() if value is None]:
            del of_client[name]
    plan["metrics"] = json.dumps(told)


@pytest.mark.parametrize("weighted_by", ["", "num-clients"])
@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"num-examples": None}, "num-examples"),
        ({"num-examples": math.nan}, "num-examples must be >= 0 and finite, got nan"),
        ({"num-examples": math.inf}, "got inf"),
        ({"num-examples": 1e308}, "got 1e+308"),
        ({"num-examples": -3}, "got -3"),
        ({"num-examples": [1, 2]}, "num-examples must be a number, got [1, 2]"),
        ({"num-examples": True}, "num-examples must be a number, got True"),
        ({"num-examples": 2.5}, "num-examples must be a whole number, got 2.5"),
        ({"num-clients": None}, "num-clients"),
        ({"received-loss": None}, "received-loss"),
        ({"received-loss": math.nan}, "received-loss is nan"),
    ],
)
def test_metrics_that_the_strategy_computes_with(metrics: dict, why: str, weighted_by: str) -> None:
    def change(content: RecordDict) -> None:
        change_metrics(content, metrics)

    check_only_that_node_failed(exchange(node(1, change), weighted_by), why)


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"loss": "0"}, "its loss must be a number, got '0'"),
        ({"loss": 2**63}, "its loss must be finite and of 64 bits, got 9223372036854775808"),
        ({"loss": -(10**400)}, "its loss must be finite and of 64 bits, got -1000"),
    ],
)
def test_metrics_that_are_no_numbers_of_a_message(metrics: dict, why: str) -> None:
    check_only_that_node_failed(exchange(node(1, lambda content: change_metrics(content, metrics))), why)


@pytest.mark.parametrize("weighted_by", ["", "num-clients"])
@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"v": ONES}, "without w"),
        ({"w": ONES, "v": ONES}, "there is no weight v"),
        ({"w": np.ones(3, np.float32)}, "w of shape [3], and w has [2]"),
        ({"w": np.full(2, np.nan, np.float32)}, "not finite"),
        ({"w": np.full(2, 1e300)}, ""),  # beyond float32
        ({"w": ONES, "kind/w": ONES}, "other arrays than those of most clients"),
        ({"w": ONES, "kind/w": np.ones(3)}, "kind/w of shape [3]"),
    ],
)
def test_arrays_that_are_not_the_models(arrays: Arrays, why: str, weighted_by: str) -> None:
    check_only_that_node_failed(exchange(node(1, arrays=arrays), weighted_by), why)


@pytest.mark.parametrize("dtype", [np.int64, np.complex128, np.str_])
def test_arrays_that_are_no_floats(dtype: type) -> None:
    wrong = node(1, arrays={"w": np.ones(2).astype(dtype)})
    check_only_that_node_failed(exchange(wrong), "which is no floating number")


@pytest.mark.parametrize("weighted_by", ["", "num-clients"])
@pytest.mark.parametrize("told", [2.0, 1e15, 0])
def test_numbers_that_a_strategy_computes_with_stay_in_their_range(told: float, weighted_by: str) -> None:
    result = exchange(node(1, metrics={"num-clients": told}), weighted_by, ranges={"num-clients": (1.0, 1.0)})
    check_only_that_node_failed(result, f"its num-clients must be 1 to 1, got {told:g}")


def test_clipping_clients_and_those_that_count_alike_may_not_count_more() -> None:
    clipping = DifferentialPrivacyClientSideFixedClipping(FedAvg(), 5, 5, 1, 1.0, noise_multiplier=0.1)
    assert declaration_of(clipping).metric_ranges == (("clients", 1.0, 1.0), ("clipped", 0.0, 1.0))
    assert declaration_of(FedDyn(num_clients=5)).metric_ranges == (("num-clients", 1.0, 1.0),)
    by_examples = FedDyn(num_clients=5, weighted_by_key="num-examples")
    assert declaration_of(by_examples).metric_ranges == ()


def setting(key: str, value: object) -> Change:
    def change(content: RecordDict) -> None:
        content.config_records[PLAN][key] = value  # type: ignore[assignment]

    return change


def failing_in(*failures: object) -> Change:
    def change(content: RecordDict) -> RecordDict:
        empty = NodeReply().pack()
        empty.config_records[PLAN]["failures"] = json.dumps(failures)
        return empty

    return change


def with_statistics(content: RecordDict) -> RecordDict:
    reply = NodeReply()
    for client in (1, 3):
        reply.fail(client, ValueError("no"))
    reply.statistics = ExactSum()
    reply.statistics.add({"mean": np.zeros(3)}, 1.0)
    return reply.pack()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (setting("seconds", math.inf), "its seconds must be a number >= 0, got inf"),
        (setting("seconds", math.nan), "its seconds must be a number >= 0, got nan"),
        (setting("client-bytes", -5), "its client-bytes must be a number >= 0, got -5"),
        (setting("sum-weights", [1.7e308, 1.7e308]), "weighted by other numbers"),
        (setting("sum-weights", []), "weighted by other numbers"),
        (failing_in([1, "why", 5], [3, "why", ""]), "a failure must be told as client, line and traceback"),
        (failing_in([1.0, "why", ""], [3, "why", ""]), "it answers for clients [1.0, 3]"),
        (failing_in([True, "why", ""], [3, "why", ""]), "it answers for clients [True, 3]"),
        (with_statistics, "statistics"),
    ],
)
def test_what_a_node_says_of_all_its_clients(change: Change, why: str) -> None:
    check_only_that_node_failed(exchange(node(1, change), "num-clients"), why)


@pytest.mark.parametrize("weighted_by", ["", "num-clients"])
def test_a_node_does_not_answer_for_clients_that_live_elsewhere(weighted_by: str) -> None:
    """Whoever answers for most clients would lead Krum to the forged update, and a mean anywhere."""

    def forging(message: Message) -> RecordDict:
        if message.metadata.message_type == "query":
            return node(1)(message)  # type: ignore[return-value]
        reply = NodeReply()
        for client in range(5):
            told = MetricRecord({"num-examples": 2, "num-clients": 1.0, "received-loss": 1.0})
            reply.add(client, RecordDict({"metrics": told}), {"w": -9 * ONES})
        return reply.pack()

    result = exchange(forging, weighted_by)
    check_only_that_node_failed(result, "it answers for clients [0, 1, 2, 3, 4], and was asked for [1, 3]")


def test_sums_whose_low_parts_are_not_low() -> None:
    def change(content: RecordDict) -> None:
        parts = content.array_records["sum"]
        parts["-low"], parts["-starts"] = Array(np.full(2, 1e30)), Array(np.zeros(1, np.int64))

    check_only_that_node_failed(exchange(node(1, change), "num-clients"), "the parts of its sum overlap")


def test_a_sum_in_another_order_is_added_by_name() -> None:
    total, other = ExactSum(), ExactSum()
    total.add({"x": np.array([1.0, 2.0]), "y": np.array([5.0])}, 1.0)
    for x in (10.0, 2.0**-60, 2.0**-120):
        other.add({"y": np.array([5 * x]), "x": np.array([x, 2 * x])}, 1.0)
    total.merge(other)
    assert {name: mean.tolist() for name, mean in total.mean().items()} == {"x": [2.75, 5.5], "y": [13.75]}
    assert set(total.rest[0]) <= {0.0, 1.0, 2.0}


def test_weights_in_another_order_are_put_in_that_of_the_request() -> None:
    content = RecordDict({"arrays": to_record({"a": ONES, "b": 2 * ONES}), "config": ConfigRecord({})})
    swapped = to_record({"b": 4 * ONES, "kind/a": ONES, "a": 3 * ONES})
    reply = NodeReply([ClientReply(0, RecordDict({"arrays": swapped, "metrics": MetricRecord(COUNTED)}))])
    wave = Wave("train", {0: Request(content)})
    (checked,) = checked_reply(reply.pack(), Asked(wave, [0])).replies
    (record,) = checked.content.array_records.values()
    assert [(name, each.tolist()[0]) for name, each in to_arrays(record).items()] == [
        ("a", 3.0),
        ("b", 4.0),
        ("kind/a", 1.0),
    ]


@pytest.mark.parametrize(
    ("sums", "why"),
    [
        (None, "it has a record 'other' of type ConfigRecord, and may have personal-sums, sums"),
        ({"accuracy": [1.0]}, "accuracy must be a sum and its weight, got [1.0]"),
        ({"accuracy": [1.0, -2.0]}, "accuracy must be >= 0"),
        ({"accuracy": [math.nan, 2.0]}, "its sum of accuracy must be at most 1e+300 in size, got nan"),
        # Two such clients together would be infinite, of which a task may make no metric.
        ({"accuracy": [1.7e308, 2.0]}, "its sum of accuracy must be at most 1e+300 in size, got 1.7e+308"),
        ({"accuracy": "much"}, "accuracy must be a sum and its weight"),
        ({"unknown": [1.0, 2.0]}, "KeyError: 'accuracy'"),
    ],
)
def test_what_clients_found_on_their_examples(sums: dict | None, why: str) -> None:
    def change(content: RecordDict) -> None:
        shared = next(key for key, record in content.config_records.items() if "accuracy" in record)
        if sums is None:
            del content.config_records[shared]["accuracy"]
            plan = content.config_records[PLAN]
            plan["groups"] = str(plan["groups"]).replace('"sums"', '"other"')
        for key, record in content.config_records.items():
            if sums is not None and "accuracy" in record:
                content[key] = ConfigRecord(dict(sums))

    check_only_that_node_failed(exchange(node(1, change), message_type="evaluate"), why)


@pytest.mark.parametrize("how", ["wide", "nan"])
def test_a_client_whose_rule_spoils_its_reply_fails_alone(
    tiny: Callable[..., dict[str, Value]], tmp_path: Path, how: str
) -> None:
    """Though it is the first whose arrays its node would add up."""
    told = ", ".join(f"{client} = {{how = '{how if client == 0 else ''}'}}" for client in range(6))
    run_in_process(
        tiny(
            strategy="asking:Widened",
            strategy_options=f"told = {{{told}}}",
            num_clients=6,
            clients_per_round=6,
            num_server_rounds=1,
            run_dir=str(tmp_path / "run"),
        )
    )
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert row["clients"] == [1, 2, 3, 4, 5]
    assert [failure["client"] for failure in row["failures"]] == [0]
