"""Many clients' messages as one, and their replies."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from strategies.wire.exact_sum import ExactSum
from strategies.wire.packing import HIGH, Replies, mean_metrics, num_bytes, pack, unpack


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


def test_replies_keep_every_client_and_every_failure() -> None:
    replies = Replies([(3, update(1.0, 2)), (1, update(2.0, 4))], {7: "ValueError: bad"}, seconds=1.5)
    back = Replies.unpack(replies.pack())
    assert [client for client, _ in back.contents] == [1, 3]
    assert back.failures == {7: "ValueError: bad"}
    assert back.seconds == 1.5
    assert back.partial is None
    assert back.contents[0][1]["arrays"]["w"].numpy().tolist() == [2.0, 2.0, 2.0]  # type: ignore[index,union-attr]


def test_presummed_replies_carry_one_sum_and_all_metrics() -> None:
    replies = Replies(partial=ExactSum())
    for client in range(1, 6):
        metrics = MetricRecord({"num-examples": 2 * client, "loss": float(client)})
        arrays = {"w": np.full(3, client, np.float32)}
        replies.add(client, RecordDict({"metrics": metrics}), arrays, "num-examples")
    back = Replies.unpack(replies.pack())
    assert back.partial is not None
    assert back.partial.weight == 30
    assert back.partial.mean()["w"].tolist() == [110 / 30] * 3  # 2 * (1 + 4 + 9 + 16 + 25) / 30
    assert all(not content.array_records for _, content in back.contents)
    assert [content["metrics"]["loss"] for _, content in back.contents] == [1.0, 2.0, 3.0, 4.0, 5.0]  # type: ignore[index]


def test_without_a_sum_updates_travel_as_they_are() -> None:
    replies = Replies()
    records = RecordDict({"metrics": MetricRecord({"num-examples": 2})})
    replies.add(1, records, {"w": np.ones(2, np.float32)}, "num-examples")
    ((_, content),) = Replies.unpack(replies.pack()).contents
    assert content["arrays"]["w"].numpy().tolist() == [1.0, 1.0]  # type: ignore[index,union-attr]


def test_a_sum_of_nobody_is_not_sent() -> None:
    assert HIGH not in Replies(failures={1: "x"}, partial=ExactSum()).pack()


def test_metrics_merge_by_weight() -> None:
    merged = mean_metrics([update(2.0, 4), update(1.0, 2)], "num-examples")
    assert dict(merged) == {"num-examples": 6.0, "loss": 10 / 6}
