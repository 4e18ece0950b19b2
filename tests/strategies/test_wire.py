"""Many clients' messages as one, and their replies."""

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from strategies.algorithms.fedprox import Proximal
from strategies.wire.exact_sum import ExactSum
from strategies.wire.node import NodeDescription, NodeError
from strategies.wire.records import num_bytes, pack, unpack
from strategies.wire.reply import HIGH, SUM, ClientFailure, ClientReply, NodeReply
from strategies.wire.reply_metrics import mean_metrics
from strategies.wire.request import RoundInfo, pack_requests, states_of, unpack_requests
from strategies.wire.train_config import number, whole_number


def update(value: float, num_examples: int) -> RecordDict:
    return RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(np.full(3, value, np.float32))}),
            "metrics": MetricRecord({"num-examples": num_examples, "loss": value}),
        }
    )


def test_a_shared_record_travels_once_and_own_records_stay_apart() -> None:
    arrays = ArrayRecord({"w": Array(np.arange(4, dtype=np.float32))})
    contents = [
        (client, RecordDict({"arrays": arrays, "config": ConfigRecord({"mu": client / 10})}))
        for client in (5, 2, 9)
    ]
    packed = pack(contents)
    assert len(packed.array_records) == 1
    assert num_bytes(packed) == len(arrays["w"].data)
    unpacked = unpack(packed)
    assert [client for client, _ in unpacked] == [2, 5, 9]
    assert [content["config"]["mu"] for _, content in unpacked] == [0.2, 0.5, 0.9]  # type: ignore[index]


def test_a_round_travels_whole() -> None:
    info = RoundInfo(7, 5, "state", "num-examples", rules=("a:B", "c:D"))
    assert RoundInfo.from_config(info.to_config()) == info


@pytest.mark.parametrize("wrong", [{"server_round": "7"}, {"rules": "a:B"}, {"surplus": 1}])
def test_a_round_of_another_shape_is_refused(wrong: dict[str, Any]) -> None:
    record = ConfigRecord({**RoundInfo(7, 5, "state").to_config(), **wrong})
    with pytest.raises(ValueError, match=r"a request's round must hold server_round \(int\)"):
        RoundInfo.from_config(record)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"server_round": -1}, "rounds of 0 to 1e9"),
        ({"restorable_round": 10**9 + 1}, "rounds of 0 to 1e9"),
        ({"rules": [7]}, "rules that are text"),
        ({"personal_rules": ["a:B"] * 101}, "at most 100 rules"),
        ({"rules": ["x" * 4097]}, "texts of at most 4096 characters"),
        ({"seconds_left": float("nan")}, "seconds that are numbers"),
        ({"repeated": [1.5]}, "repeated clients that are numbers"),
    ],
)
def test_a_round_of_strange_values_is_refused(wrong: dict[str, Any], why: str) -> None:
    record = ConfigRecord({**RoundInfo(7, 5, "state").to_config(), **wrong})
    with pytest.raises(ValueError, match=f"a request's round must hold {why}"):
        RoundInfo.from_config(record)


def asked_of(*clients: Any, **changed: Any) -> RecordDict:
    """Return a message to these clients, with some of its records changed."""
    sent = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(1))}), "config": ConfigRecord({})})
    content = pack_requests([(client, sent) for client in clients], RoundInfo(1, 0, "state"))
    for key, record in changed.items():
        content[key] = record
    return content


def planned(*groups: Any) -> ConfigRecord:
    return ConfigRecord({"groups": json.dumps(groups)})


RECORDS = {"arrays": "record-0", "config": "record-1"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (asked_of(0, 0), "a message's plan must name each client once"),
        (
            asked_of(0, plan=planned({"records": RECORDS, "clients": [-1]})),
            "0.clients.0: Input should be great",
        ),
        (
            asked_of(0, plan=planned({"records": RECORDS, "clients": [True]})),
            "0.clients.0: Input should be a va",
        ),
        (asked_of(0, plan=planned({"records": RECORDS})), "0.clients: Field required"),
        (asked_of(0, plan=planned({"records": RECORDS, "clients": [0], "x": 1})), "0.x: Extra inputs"),
        (asked_of(0, plan=ConfigRecord({"groups": "[" * 10**6})), "recursion limit exceeded"),
        (asked_of(0, plan=ConfigRecord({"groups": "[]", "more": 1})), "must be one text of at most"),
        (
            asked_of(0, plan=planned({"records": {"a": "record-0"}, "clients": [0]})),
            "of which its plan says nothing",
        ),
        (
            asked_of(0, plan=planned({"records": {**RECORDS, "b": "c"}, "clients": [0]})),
            "a client is asked by one",
        ),
        (asked_of(0, more=ConfigRecord({})), "holds the record 'more', of which its plan says nothing"),
        (asked_of(0, round=ArrayRecord({})), "must hold a ConfigRecord 'round', got ArrayRecord"),
        (asked_of(0, fixed=ConfigRecord({})), "must hold a ArrayRecord 'fixed', got ConfigRecord"),
        (RecordDict(), "must hold a ConfigRecord 'round', got NoneType"),
    ],
)
def test_a_message_of_another_form_is_refused(content: RecordDict, why: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (its words hold brackets)
        unpack_requests(content)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[", "[[0, 1]]", '[["0", 1, "a"]]', f'[[0, -1, "{"a" * 64}"]]', '[[0, 1, "../x"]]']
)
def test_states_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a message's states cannot be read|the hash of a state"):
        states_of(asked_of(0, states=ConfigRecord({"states": text})))


def test_a_request_keeps_weights_aux_tensors_and_fixed_weights_apart() -> None:
    def record(**arrays: float) -> ArrayRecord:
        return ArrayRecord(
            {name.replace("_", "/"): Array(np.float32([value])) for name, value in arrays.items()}
        )

    sent = RecordDict({"arrays": record(w=1.0, control_w=2.0), "config": ConfigRecord({"mu": 0.5})})
    content = pack_requests([(4, sent), (2, sent)], RoundInfo(1, 0, "state"), fixed=record(frozen=3.0))
    info, (first, second) = unpack_requests(content)
    assert (info, first.client, second.client) == (RoundInfo(1, 0, "state"), 2, 4)
    assert first.weights is second.weights
    assert {name: float(tensor) for name, tensor in first.weights.items()} == {"w": 1.0}
    assert float(first.aux["control"]["w"]) == 2.0
    assert {name: float(tensor) for name, tensor in first.fixed.items()} == {"frozen": 3.0}
    assert {name: float(tensor) for name, tensor in first.given.items()} == {"w": 1.0, "frozen": 3.0}
    assert {name: array.tolist() for name, array in first.received.items()} == {
        "w": [1.0],
        "control/w": [2.0],
    }
    assert dict(first.config) == {"mu": 0.5}


def test_a_node_replies_for_every_client_and_tells_every_failure() -> None:
    replies = [ClientReply(3, update(1.0, 2)), ClientReply(1, update(2.0, 4))]
    back = NodeReply.unpack(
        NodeReply(replies, [ClientFailure(7, "ValueError: bad", "Traceback ...")], seconds=1.5).pack()
    )
    assert [reply.client for reply in back.replies] == [1, 3]
    assert back.failures == [ClientFailure(7, "ValueError: bad", "Traceback ...")]
    assert [each.node for each in back.on_node(12).failures] == [12]
    assert back.seconds == 1.5
    assert back.total is None
    assert back.replies[0].content["arrays"]["w"].numpy().tolist() == [2.0, 2.0, 2.0]  # type: ignore[index,union-attr]


def test_a_failure_keeps_its_traceback() -> None:
    def deep() -> None:
        raise ValueError("no\n  good")

    try:
        deep()
    except ValueError as error:
        failure = ClientFailure.of(3, error)
    assert (failure.client, failure.error) == (3, "ValueError: no good")
    assert "in deep" in failure.traceback


def collector(num_clients: int, weighted_by: str = "num-examples") -> NodeReply:
    return NodeReply.collecting(weighted_by, num_clients)


def test_many_replies_travel_as_one_sum_and_all_metrics() -> None:
    reply = collector(5)
    array = np.zeros(3, np.float32)  # one array for all: what is collected must not depend on it any more
    for client in range(1, 6):
        metrics = MetricRecord({"num-examples": 2 * client, "loss": float(client)})
        array[:] = client
        reply.add(client, RecordDict({"metrics": metrics}), {"w": array})
    back = NodeReply.unpack(reply.pack())
    assert back.total is not None
    assert back.total.weight == 30
    assert back.total.mean()["w"].tolist() == [110 / 30] * 3  # 2 * (1 + 4 + 9 + 16 + 25) / 30
    assert all(not each.content.array_records for each in back.replies)
    assert [each.content["metrics"]["loss"] for each in back.replies] == [1.0, 2.0, 3.0, 4.0, 5.0]  # type: ignore[index]


@pytest.mark.parametrize("reply", [collector(2), collector(9, weighted_by="")], ids=["few", "every"])
def test_without_a_sum_updates_travel_as_they_were_collected(reply: NodeReply) -> None:
    array = np.ones(2, np.float32)
    reply.add(1, RecordDict({"metrics": MetricRecord({"num-examples": 2})}), {"w": array})
    array[:] = 7.0
    (back,) = NodeReply.unpack(reply.pack()).replies
    assert back.content["arrays"]["w"].numpy().tolist() == [1.0, 1.0]  # type: ignore[index,union-attr]


def test_a_sum_of_nobody_is_not_sent() -> None:
    assert SUM + HIGH not in NodeReply(failures=[ClientFailure(1, "x")], total=ExactSum()).pack()


def test_metrics_merge_by_weight() -> None:
    merged = mean_metrics([update(2.0, 4), update(1.0, 2)], "num-examples")
    assert dict(merged) == {"num-examples": 6.0, "loss": 10 / 6}


def test_numbers_that_a_strategy_sends_are_read_by_type() -> None:
    config = ConfigRecord({"whole": 3, "part": 0.5, "text": "0.5", "truth": True, "several": [1.0]})
    assert (number(config, "whole"), number(config, "part"), whole_number(config, "whole")) == (3.0, 0.5, 3)
    assert type(number(config, "whole")) is float
    for key, kind in (("text", "str"), ("truth", "bool"), ("several", "list")):
        with pytest.raises(
            ValueError, match=rf"^{key} must be a number, and the strategy sends .*\({kind}\)$"
        ):
            number(config, key)
    with pytest.raises(
        ValueError, match=r"^part must be a whole number, and the strategy sends 0.5 \(float\)$"
    ):
        whole_number(config, "part")


def test_a_word_that_a_strategy_forgot_to_send_is_named() -> None:
    with pytest.raises(
        ValueError, match="must send proximal-mu to its clients, and it sends alpha, server-round"
    ):
        Proximal({"server-round": 1, "alpha": 0.1})
    with pytest.raises(ValueError, match="must send proximal-mu to its clients, and it sends nothing"):
        Proximal({})


def test_a_node_describes_itself_or_says_why_not() -> None:
    description = NodeDescription(
        partition_id=1, num_partitions=3, own_data=False, data="abc", state=("w float32 (3,)",)
    )
    assert NodeDescription.unpack(description.pack()) == description
    with pytest.raises(NodeError, match=r"^no data$") as error:
        NodeDescription.unpack(NodeError("no data", "Traceback ...").pack())
    assert (error.value.whole, error.value.place) == ("Traceback ...", None)
    with pytest.raises(NodeError) as error:
        NodeDescription.unpack(NodeError("no data", "Traceback ...", (1, 3)).pack())
    assert error.value.place == (1, 3)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"description": '{"partition-id": 0, "num-partitions": 1}'},
        {
            "description": '{"partition_id": "0", "num_partitions": 1, "own_data": false, "data": "", '
            '"state": []}'
        },
    ],
)
def test_a_node_of_another_polyfed_is_told_so(said: dict[str, str]) -> None:
    content = RecordDict({"node": ConfigRecord({**said})})
    with pytest.raises(NodeError, match="do server and nodes have the same polyfed") as error:
        NodeDescription.unpack(content)
    assert str(said) in error.value.whole
