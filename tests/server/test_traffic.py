"""What leaves nodes, by kind."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from server.run_schema import LEAVES
from server.traffic import left_in
from strategies.secure.masked_reply import pack, vector_of
from strategies.wire.exact_sum import ExactSum
from strategies.wire.reply import NodeReply

W = np.arange(6, dtype=np.float32)


def told(examples: int) -> RecordDict:
    return RecordDict({"metrics": MetricRecord({"num-examples": examples})})


def test_what_single_clients_send() -> None:
    reply = NodeReply()
    reply.add(3, told(5), {"w": W})
    reply.fail(4, ValueError("no such file"))
    content = reply.pack()
    left = left_in(content)
    assert left["updates"] == len(content.array_records["record-0"]["w"].data)
    plan = content.config_records["plan"]
    assert left["metrics"] == len('[[3, {"num-examples": 5}]]')
    assert left["failures"] == len(str(plan["failures"])) > len("ValueError: no such file")
    assert left["lists"] == sum(len(str(plan[key])) for key in ("groups", "states")) + 2 * 8
    assert not left.keys() - LEAVES.keys()


def test_what_a_node_adds_up() -> None:
    reply = NodeReply.collecting("num-examples", 3)
    for client in range(3):
        reply.add(client, told(2), {"w": W}, statistics={"mean": W})
    content = reply.pack()
    left = left_in(content)
    assert "updates" not in left
    for kind, key in (("sums", "sum"), ("statistics", "statistics-sum")):
        assert left[kind] == sum(len(array.data) for array in content.array_records[key].values())


def test_what_clients_have_found_on_their_own_examples() -> None:
    reply = NodeReply()
    reply.add(0, RecordDict({**told(7), "sums": ConfigRecord({"loss": [1.5, 7.0]})}))
    assert left_in(reply.pack())["metrics"] == len('[[0, {"num-examples": 7}]]') + len("loss") + 2 * 8
    strange = RecordDict({"x": ArrayRecord({"a": Array(W)}), "y": ConfigRecord({"z": b"12345"})})
    assert left_in(strange) == {"updates": len(Array(W).data), "metrics": 1 + 5}


def test_what_is_masked() -> None:
    reply = NodeReply(total=ExactSum(), weighted_by="num-examples")
    reply.add(0, told(7), {"w": W})
    content = pack(reply, *vector_of(reply, lambda client: 1, ["loss"]))
    left = left_in(content)
    texts = [*content.config_records["secure"].items(), *content.config_records["plan"].items()]
    assert left["masked"] == len(content.array_records["masked"]["vector"].data) > 16 * (6 + 2 + 2)
    assert {kind for kind in left if left[kind]} == {"masked", "lists", "failures"}  # "[]", as of every reply
    assert left["lists"] >= sum(len(value) for _, value in texts if isinstance(value, str)) - len("[]")
