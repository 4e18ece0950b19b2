"""The labels and tokens that a message names."""

from typing import Any

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from strategies.wire.vocabulary import Vocabulary


def test_names_travel_in_their_order() -> None:
    for said in (Vocabulary(("dog", "cat")), Vocabulary(tokens=("a", "b", "ab"), merges=("a", "b"))):
        records = RecordDict({**said.pack()})
        assert Vocabulary.unpack(records) == said
        as_it_travels = recorddict_to_proto(records).SerializeToString()
        read = recorddict_from_proto(ProtoRecordDict.FromString(as_it_travels))
        assert Vocabulary.unpack(read) == said
    assert Vocabulary().pack() == {}
    assert Vocabulary.unpack(RecordDict()) == Vocabulary()


@pytest.mark.parametrize(
    "record",
    [
        MetricRecord({"labels": 1}),
        ConfigRecord({"labels": "cat"}),
        ConfigRecord({"labels": []}),
        ConfigRecord({"labels": ["cat"], "more": 1}),
        ConfigRecord({"labels": [1, 2]}),
        ConfigRecord({"labels": ["cat", ""]}),
        ConfigRecord({"tokens": ["x" * 201]}),
        ConfigRecord({"labels": ["x"] * 1_001}),
        ConfigRecord({"labels": ["x"], "tokens": ["x"] * 100_001}),
    ],
)
def test_whatever_else_a_server_says_is_refused(record: Any) -> None:
    with pytest.raises(ValueError, match=r"^a message's (labels|tokens|vocabulary) must be"):
        Vocabulary.unpack(RecordDict({"vocabulary": record}))
