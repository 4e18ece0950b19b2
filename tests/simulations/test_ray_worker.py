"""What a worker of Ray's answers for the clients that it is dealt."""

import math
from collections.abc import Collection
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import MetricRecord, RecordDict

from simulations.runtime.ray_worker import RayWorker
from strategies.wire.exact_sum import ExactSum
from strategies.wire.reply import METRICS, NodeReply
from strategies.wire.reply_metrics import NUM_EXAMPLES


def add(clients: Collection[int], reply: NodeReply | None) -> NodeReply:
    """Do a node's work: client 5 breaks it, not by an exception of its own."""
    reply = reply or NodeReply(total=ExactSum(), weighted_by=NUM_EXAMPLES)
    for client in clients:
        if client == 5:
            raise TimeoutError("an alarm between two clients")
        content = RecordDict({METRICS: MetricRecord({NUM_EXAMPLES: 1})})
        reply.add(client, content, {"w": np.array([2.0**client])})
    return reply


def test_clients_of_a_portion_that_breaks_are_answered_for_once() -> None:
    worker = RayWorker({})
    worker._number, worker._work = 1, SimpleNamespace(do=add)  # type: ignore[assignment]
    assert worker.do(1, [], "train", [1, 2], math.inf) is None
    assert worker.do(1, [], "train", [3, 5, 7], math.inf) is None
    held = worker.hand_over()
    assert held is not None
    assert held.total is not None
    assert [each.client for each in held.replies] == [1, 2, 3]
    assert held.total.high.tolist() == [2.0 + 4.0 + 8.0]
    failed = [(each.client, each.error) for each in held.failures]
    assert failed == [(client, "TimeoutError: an alarm between two clients") for client in (5, 7)]


def test_a_message_that_cannot_be_begun_fails_all_portions_for_the_same_reason() -> None:
    worker = RayWorker({})
    with pytest.raises(ValueError, match="must hold a ConfigRecord 'round'"):
        worker.do(1, [RecordDict()], "train", [1, 2], math.inf)
    with pytest.raises(
        ValueError, match="must hold a ConfigRecord 'round'"
    ):  # which is sent without the message
        worker.do(1, [], "train", [3], math.inf)
