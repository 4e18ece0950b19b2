"""A thousand replies, each spoilt in one place: none gets into the model or ends a run; each is named."""

import math
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import cycle
from random import Random

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy
from reply_mutations import MUTATIONS
from scripted_grid import Answer, ScriptedGrid

from server.cohort import CohortGrid
from server.cohort_result import CohortResult
from server.metric_checks import Expected
from server.node_registry import NodeRegistry
from strategies.algorithms.krum import Krum
from strategies.wire.arrays import HeldArray, to_arrays, to_record
from strategies.wire.compression import CODECS, compress
from strategies.wire.exact_sum import ExactSum
from strategies.wire.node import NodeDescription
from strategies.wire.reply import NodeReply
from strategies.wire.request import RoundInfo, unpack_requests

CLIENTS = range(8)
HOSTILE = {1, 3, 5, 7}
"""The clients of the node whose replies are spoilt."""
SENT = {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}
NORM, MOST_EXAMPLES = 10.0, 1000
PLAIN = re.compile(r"[A-Z]\w*(Error|Exception|Warning|Mask)\b|Traceback")
"""What a line that is written for a reader does not hold: the name of an exception."""


@dataclass(frozen=True)
class Case:
    """How clients reply, and what is made of it."""

    summed: bool = False
    weighted_by: str = ""
    codec: str = ""
    statistics: bool = False
    strategy: Callable[[], Strategy] = FedAvg
    references: dict[frozenset[int], dict[str, bytes]] = field(default_factory=dict)


def krum() -> Krum:
    strategy = Krum(num_malicious_nodes=1, num_sampled_clients=len(CLIENTS))
    strategy._weights = SENT
    return strategy


CASES = {
    "sums": Case(summed=True, weighted_by="num-examples"),
    "sums with statistics": Case(summed=True, weighted_by="num-examples", statistics=True),
    "single replies to a mean": Case(weighted_by="num-examples"),
    "single replies with statistics": Case(weighted_by="num-examples", statistics=True),
    "top-k": Case(weighted_by="num-examples", codec="top-k"),
    "Krum": Case(strategy=krum),
    "Krum over int8": Case(strategy=krum, codec="int8"),
    "Krum over bfloat16": Case(strategy=krum, codec="bfloat16"),
}
PER_CASE = 130
"""Mutations; 1,040 in all."""


def trained(client: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(client)
    return {name: (each + rng.standard_normal(each.shape)).astype(np.float32) for name, each in SENT.items()}


def packed(case: Case, clients: Sequence[int], failing: frozenset[int] = frozenset()) -> RecordDict:
    """Return what an honest node replies, in bytes as it comes over a network."""
    reply = NodeReply(total=ExactSum() if case.summed else None, weighted_by=case.weighted_by)
    for client in clients:
        if client in failing:
            reply.fail(client, ValueError("no"))
            continue
        content = RecordDict({"metrics": MetricRecord({"num-examples": client + 1, "loss": 0.5})})
        arrays = trained(client)
        if case.codec:
            generator = torch.Generator().manual_seed(client)
            records = compress(CODECS[case.codec], 0.5, arrays, SENT, {}, generator).records
            for key, parts in records.items():
                content[key] = to_record(parts)
        statistics = {"mean": np.ones(2, np.float32)} if case.statistics else None
        reply.add(client, content, None if case.codec else arrays, statistics)
    content = reply.pack()
    for record in content.array_records.values():
        for name, array in list(record.items()):
            assert isinstance(array, HeldArray)
            record[name] = Array(array.dtype, array.shape, array.stype, array.data)
    return content


def node(partition: int, reply: RecordDict) -> Answer:
    def answer(message: Message) -> RecordDict:
        if message.metadata.message_type != "query":
            assert unpack_requests(message.content)
            return reply
        return NodeDescription(
            partition_id=partition, num_partitions=2, own_data=False, data="", state=()
        ).pack()

    return answer


def exchanged(case: Case, replies: Sequence[RecordDict]) -> tuple[CohortResult, dict[str, bytes]]:
    """Return what came of a round of two nodes that reply so, and the strategy's new weights."""
    grid = ScriptedGrid({10 + place: node(place, reply) for place, reply in enumerate(replies)})
    registry = NodeRegistry(len(CLIENTS), "", (), interchangeable=False)
    registry.wait_for_all(grid, timeout=5)
    expected = Expected(
        {"num-examples"},
        aux=False,
        compression=case.codec,
        max_update_norm=NORM,
        max_examples=MOST_EXAMPLES,
    )
    cohort = CohortGrid(grid, registry, expected=expected)
    content = RecordDict({"arrays": to_record(SENT), "config": ConfigRecord({})})
    statistics = {"mean": torch.zeros(2)} if case.statistics else None
    result = cohort.exchange(
        [Message(content, client, "train") for client in CLIENTS],
        RoundInfo(1, 0, "/state", case.weighted_by),
        60.0,
        statistics,
    )
    arrays, _ = case.strategy().aggregate_train(1, result.replies)
    assert isinstance(arrays, ArrayRecord)
    found = {name: each.tobytes() for name, each in to_arrays(arrays).items()}
    return result, found | {name: each.tobytes() for name, each in result.statistics.items()}


def without(case: Case, failing: frozenset[int]) -> dict[str, bytes]:
    """Return the weights of a round in which these clients say themselves that they have failed."""
    if failing not in case.references:
        replies = [packed(case, CLIENTS[place::2], failing) for place in (0, 1)]
        result, weights = exchanged(case, replies)
        assert {each.client for each in result.failures} == failing
        case.references[failing] = weights
    return case.references[failing]


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_with_a_reply_is_the_failure_of_its_clients_alone(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case, rng, done = CASES[name], Random(f"replies to {name}"), 0
    honest, hostile = (packed(case, CLIENTS[place::2]) for place in (0, 1))
    mutations = cycle(rng.sample(list(MUTATIONS), len(MUTATIONS)))
    while done < PER_CASE:
        mutation, content = next(mutations), deepcopy(hostile)
        concerned = MUTATIONS[mutation](content, rng)
        if concerned is None:  # there is no such place in these replies
            continue
        result, weights = exchanged(case, [honest, content])
        failed = {each.client: each.error for each in result.failures}
        assert concerned <= failed.keys() <= HOSTILE, (mutation, failed)
        if concerned < HOSTILE and not case.statistics:
            assert failed.keys() == concerned, (mutation, failed)
        for error in failed.values():
            assert 10 < len(error) <= 1000, (mutation, error)
            assert not PLAIN.search(error), (mutation, error)
        assert weights == without(case, frozenset(failed)), mutation
        done += 1
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["sums", "single replies to a mean"])
def test_what_the_others_replied_is_averaged_as_ever(name: str) -> None:
    left = [client for client in CLIENTS if client != 3]
    weight = math.fsum(client + 1 for client in left)
    exact = {
        key: np.vectorize(lambda *terms: math.fsum(terms) / weight)(
            *((client + 1) * np.float64(trained(client)[key]) for client in left)
        )
        for key in SENT
    }
    found = without(CASES[name], frozenset({3}))
    assert found == {key: each.tobytes() for key, each in exact.items()}
