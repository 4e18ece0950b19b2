"""The labels that a message names."""

from typing import Any

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from strategies.wire.labels import labels_in, pack_labels


def test_labels_travel_in_their_order() -> None:
    assert labels_in(RecordDict({**pack_labels(("dog", "cat"))})) == ("dog", "cat")
    assert pack_labels(()) == {}
    assert labels_in(RecordDict()) == ()


@pytest.mark.parametrize(
    "record",
    [
        MetricRecord({"labels": 1}),
        ConfigRecord({}),
        ConfigRecord({"labels": "cat"}),
        ConfigRecord({"labels": []}),
        ConfigRecord({"labels": ["cat"], "more": 1}),
        ConfigRecord({"labels": [1, 2]}),
        ConfigRecord({"labels": ["cat", ""]}),
        ConfigRecord({"labels": ["x" * 201]}),
        ConfigRecord({"labels": ["x"] * 10_001}),
    ],
)
def test_whatever_else_a_server_says_is_refused(record: Any) -> None:
    with pytest.raises(ValueError, match="^a message's labels must be"):
        labels_in(RecordDict({"labels": record}))
