"""Asynchronous rounds on real nodes: updates count as they arrive, and nobody is waited for who is slow."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beating_grid import BeatingGrid
from finished import Make, result_of
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from scripted_grid import Answer
from test_cohort import asking
from test_nodes_come_and_go import grid_clock

from models.core.errors import UserError
from server.cohort import CohortGrid
from server.cohort_result import CohortResult
from server.metric_checks import Expected
from server.node_registry import NodeRegistry
from server.real_arrivals import RealArrivals
from server.run_schema import RoundRecord
from simulations.runs.reader import read_run
from simulations.runtime.in_process import InProcessGrid, run_in_process, run_server
from strategies.wire.arrays import views
from strategies.wire.exact_sum import ExactSum
from strategies.wire.node import NodeDescription
from strategies.wire.reply import ARRAYS, NodeReply
from strategies.wire.request import RoundInfo, unpack_requests
from strategies.wire.saved_state import SavedState

HASH = "ab" * 32


def adding(
    partition: int,
    num_partitions: int,
    step: Callable[[int], Sequence[float]] = lambda c: [c + 1.0] * 2,
    examples: int = 1,
) -> Answer:
    """Return a node whose client c adds `step(c)` to what it was sent."""

    def answer(message: Message) -> RecordDict:
        if message.metadata.message_type == "query":
            said: Any = {"own_data": False, "data": "", "state": ()}
            return NodeDescription(partition_id=partition, num_partitions=num_partitions, **said).pack()
        info, requests = unpack_requests(message.content)
        assert len(requests) == 1, "a node is asked for one client at a time"
        reply = NodeReply(total=ExactSum() if info.weighted_by else None, weighted_by=info.weighted_by)
        for each in requests:
            arrays = {"w": (each.received["w"] + step(each.client)).astype(np.float32)}
            told = RecordDict({"metrics": MetricRecord({"num-examples": examples})})
            reply.add(each.client, told, arrays, saved=SavedState(info.server_round, HASH))
        return reply.pack()

    return answer


class Federation:
    """Scripted nodes on a clock that a test moves, and asynchronous rounds over them."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        nodes: dict[int, Answer],
        buffer_size: int,
        *,
        num_clients: int = 3,
        exponent: float = 1.0,
        expected: Expected | None = None,
    ) -> None:
        self.grid = HoldingGrid(nodes, monkeypatch)
        registry = NodeRegistry(num_clients, "", (), interchangeable=False, silence=35.0)
        registry.wait_for_all(self.grid, timeout=5)
        for module in ("exchange", "busy_nodes", "real_time", "cohort"):
            monkeypatch.setattr(f"server.{module}.time", clock_of(self.grid))
        self.clients = CohortGrid(self.grid, registry, round_grace=60.0, expected=expected)
        self.pace = RealArrivals(1, num_clients, num_clients, buffer_size, exponent)

    def round(
        self, server_round: int, weights: Sequence[float] = (0.0, 0.0), timeout: float = 3000.0
    ) -> CohortResult:
        shown = self.pace.begin(server_round, self.clients)
        record = ArrayRecord({"w": Array(np.array(weights, np.float32))})
        content = RecordDict({"arrays": record, "config": ConfigRecord({"server-round": server_round})})
        messages = [Message(content, client, "train") for client in shown]
        info = self.pace.info(RoundInfo(server_round, 0, "state"))
        cohort = self.pace.exchange(self.clients)(messages, info, timeout, {}, math.inf)
        return self.pace.end(server_round, cohort, views(record))


class HoldingGrid(BeatingGrid):
    """Keeps the answers of some nodes back: these are slow."""

    def __init__(self, nodes: dict[int, Answer], monkeypatch: pytest.MonkeyPatch) -> None:
        self.slow: set[int] = set()
        super().__init__(nodes, monkeypatch)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        by_id = {message.metadata.message_id: message.metadata.dst_node_id for message in self.sent}
        return super().pull_messages([each for each in message_ids if by_id[each] not in self.slow])


def clock_of(grid: BeatingGrid) -> Any:
    clock: Any = grid_clock(grid)
    clock.perf_counter = clock.monotonic
    return clock


def three(monkeypatch: pytest.MonkeyPatch, buffer_size: int, **options: Any) -> Federation:
    nodes = {10 + place: adding(place, 3) for place in range(3)}
    return Federation(monkeypatch, nodes, buffer_size, **options)


def replied(cohort: CohortResult) -> dict[int, list[float]]:
    return {each.metadata.src_node_id: views(each.content[ARRAYS])["w"].tolist() for each in cohort.replies}


def failures(cohort: CohortResult) -> dict[int, str]:
    return {each.client: each.error for each in cohort.failures}


def test_a_slow_node_is_not_waited_for_and_its_update_counts_by_its_age(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Client 2 begins at 0 and adds 3; two models later it moves 10 by 3 / (1 + 2)."""
    of = three(monkeypatch, buffer_size=2)
    of.grid.slow = {12}
    before = of.grid.now
    for server_round in (1, 2):
        assert replied(of.round(server_round, (5.0, 5.0) if server_round == 2 else (0.0, 0.0))) == (
            {0: [1.0, 1.0], 1: [2.0, 2.0]} if server_round == 1 else {0: [6.0, 6.0], 1: [7.0, 7.0]}
        )
        assert of.pace.staleness == 0.0
    assert of.grid.now == before
    of.grid.slow = set()
    third = replied(of.round(3, (10.0, 10.0)))
    assert third.pop(2) == [11.0, 11.0]
    ((client, fresh),) = third.items()
    assert fresh == [11.0 + client] * 2
    assert of.pace.staleness == 1.0, "the mean of 2 and 0"
    assert set(of.pace.buffer.began) == {each.server_round for each in of.pace.clock.in_flight}


def test_rounds_without_updates_leave_no_weights_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {10 + place: adding(place, 3, lambda _: np.array([math.nan, 0.0])) for place in range(3)}
    of = Federation(monkeypatch, nodes, 2)
    for server_round in range(1, 5):
        assert not replied(of.round(server_round))
        assert not of.pace.buffer.began


def test_a_client_that_is_under_way_is_not_asked_again_and_trains_on_a_model_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = three(monkeypatch, buffer_size=2)
    of.grid.slow = {12}
    of.grid.sent.clear()
    for server_round in (1, 2, 3):
        of.round(server_round)
    asked = [
        (unpack_requests(each.content)[0].server_round, each.metadata.dst_node_id) for each in of.grid.sent
    ]
    assert sorted(asked) == [(1, 10), (1, 11), (1, 12), (2, 10), (2, 11), (3, 10), (3, 11)]


def test_a_node_that_dies_with_a_request_under_way_costs_its_client_that_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = three(monkeypatch, buffer_size=3)
    of.grid.dead.add(12)
    before = of.grid.now
    first = of.round(1)
    assert replied(first) == {0: [1.0, 1.0], 1: [2.0, 2.0]}
    assert failures(first) == {2: "its node has gone, or was started anew, before it answered"}
    assert 35 < of.grid.now - before < 40, "no more can arrive"
    of.grid.start(13, adding(2, 3))
    of.clients.get_node_ids()
    assert sorted(replied(of.round(2))) == [0, 1, 2]


def test_one_that_dies_while_others_go_on_fails_in_the_round_in_which_that_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = three(monkeypatch, buffer_size=2)
    of.grid.dead.add(12)
    assert failures(of.round(1)) == {}
    of.grid.sleep(40.0)
    second = of.round(2)
    assert sorted(replied(second)) == [0, 1]
    assert failures(second) == {2: "its node has gone, or was started anew, before it answered"}
    assert of.pace.clock.in_flight == []


def test_one_that_takes_too_long_has_failed_and_is_asked_again_when_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = three(monkeypatch, buffer_size=3)
    of.grid.slow = {12}
    first = of.round(1, timeout=100.0)
    why = "its node did not answer within 160 s (round-timeout + round-grace)"
    assert failures(first) == {2: why}
    sent, before = len(of.grid.sent), of.grid.now
    assert sorted(replied(of.round(2))) == [0, 1]
    assert [each.metadata.dst_node_id for each in of.grid.sent[sent:]].count(12) == 0
    assert of.grid.now == before, "nor is it waited for"
    of.grid.slow = set()
    third = of.round(3, (20.0, 20.0))
    assert replied(third) == {0: [21.0, 21.0], 1: [22.0, 22.0], 2: [23.0, 23.0]}
    assert not of.grid._answers, "its late answer was dropped"


def test_clients_of_one_node_train_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {10: adding(0, 2), 11: adding(1, 2)}
    of = Federation(monkeypatch, nodes, buffer_size=4, num_clients=4)
    assert replied(of.round(1)) == {client: [client + 1.0] * 2 for client in range(4)}


def test_a_reply_is_checked_against_the_weights_that_it_was_asked_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client 2 moves by (3, 4), which is bounded to (0.6, 0.8) of where it began, not of the newest model."""
    nodes = {10: adding(0, 3, lambda _: (0.5, 0)), 11: adding(1, 3, lambda _: (0.5, 0))}
    nodes[12] = adding(2, 3, lambda _: (3, 4))
    of = Federation(monkeypatch, nodes, 2, expected=Expected(max_update_norm=1.0))
    of.grid.slow = {12}
    assert sorted(replied(of.round(1))) == [0, 1]
    of.grid.slow = set()
    assert replied(of.round(2, (100.0, 100.0)))[2] == pytest.approx([100.3, 100.4])


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ([math.nan, 0.0], "its reply cannot be used: w is not finite"),
        ([[1.0, 1.0]] * 3, "its reply cannot be used: it replies w of shape [3, 2], and w has [2]"),
    ],
)
def test_a_late_reply_that_cannot_be_used_is_its_clients_failure_and_no_update(
    monkeypatch: pytest.MonkeyPatch, step: Any, said: str
) -> None:
    nodes = {10: adding(0, 3), 11: adding(1, 3), 12: adding(2, 3, lambda _: np.array(step))}  # type: ignore[arg-type]
    of = Federation(monkeypatch, nodes, 2)
    of.grid.slow = {12}
    of.round(1)
    of.grid.slow = set()
    second = of.round(2)
    assert sorted(replied(second)) == [0, 1], "two updates are in, as no one's failure is an update"
    assert failures(second)[2].startswith(said)


def test_who_has_no_examples_goes_along_and_is_no_update(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {10: adding(0, 3, examples=0), 11: adding(1, 3), 12: adding(2, 3)}
    for server_round in range(1, 5):  # whoever is asked first
        of = Federation(monkeypatch, nodes, 2)
        of.pace.clock.drawn = server_round
        assert {1, 2} <= replied(of.round(1)).keys()
    nothing = {10 + place: adding(place, 3, examples=0) for place in range(3)}
    cohort = Federation(monkeypatch, nothing, 1).round(1)
    assert failures(cohort) == dict.fromkeys(
        range(3), "it has no examples, as all that answered (num-examples is 0)"
    )


def test_a_node_that_trains_is_asked_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    of = three(monkeypatch, buffer_size=2)
    of.grid.slow = {12}
    of.round(1)
    assert [of.pace.evaluates(client) for client in range(3)] == [True, True, False]
    before = of.grid.now
    asked = of.clients.exchange(asking([0, 1, 2]), RoundInfo(1, 0, "state"), 100.0)
    assert asked.clients == [0, 1]
    assert failures(asked) == {2: "its node still works on round 1"}
    assert of.grid.now == before


def test_an_answer_that_nobody_has_asked_for_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    of = three(monkeypatch, buffer_size=3)
    stray = Message(adding(0, 3)(of.grid.sent[0]), reply_to=of.grid.sent[0])  # type: ignore[arg-type]
    of.grid._answers["message-of-another-run"] = stray
    assert sorted(replied(of.round(1))) == [0, 1, 2]
    assert of.grid._answers == {"message-of-another-run": stray}


def test_what_was_under_way_is_asked_first_after_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    of = three(monkeypatch, buffer_size=1, num_clients=9)
    of.pace.cohort = 3
    of.grid.slow = {11, 12}
    of.round(1)
    under_way = [each.client for each in of.pace.clock.in_flight]
    assert len(under_way) >= 2
    kept, tensors = of.pace.memory()
    assert tensors == {}

    again = three(monkeypatch, buffer_size=1, num_clients=9)
    again.pace.restore(kept, {})
    assert again.pace.memory()[0]["clock"]["in_flight"] != []
    again.grid.sent.clear()
    again.round(2)
    asked = [unpack_requests(each.content)[1][0].client for each in again.grid.sent]
    assert asked[: len(under_way)] == under_way
    assert again.pace.again == []


def test_a_run_that_steps_back_drops_what_was_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    of = three(monkeypatch, buffer_size=2)
    of.grid.slow = {12}
    of.round(1)
    of.pace.restore({"clock": {"drawn": 7}, "oldest": []}, {})
    assert of.clients.busy.reserved == {}
    assert sorted(replied(of.round(1))) == [0, 1], "node 12 is busy with what nobody waits for"
    (late,) = of.grid._answers
    of.grid.slow = set()
    of.round(2)
    assert sorted(each.metadata.dst_node_id for each in of.grid.sent[-3:]) == [10, 11, 12]
    assert late not in of.grid._answers


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (None, "without asynchronous rounds on real nodes"),
        ({"clock": {}, "files": {}}, "without asynchronous rounds on real nodes"),
        ({"clock": {"drawn": "x"}, "oldest": []}, "its clock is broken"),
        ({"clock": {}, "oldest": [[1]]}, "its list of what was under way is broken"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(memory: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RealArrivals(1, 2, 2, 1, 0.5).restore(memory, {})


class RealNodes(InProcessGrid):
    """Two nodes with disks of their own, of which some requests are slow.

    `until` is (client, round) -> in which round that request is answered.
    """

    waits_by_itself = False
    interchangeable_nodes = False

    def __init__(self, config: dict[str, Any], state: Path, until: dict[tuple[int, int], int]) -> None:
        super().__init__(config, 2)
        self.until, self.newest, self.asked = until, 0, dict[str, tuple[int, int]]()
        self.killed_at = math.inf
        for node, context in self.contexts.items():
            context.node_config["state-path"] = str(state / str(node))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        ids = super().push_messages(messages)
        for each in messages:
            if each.metadata.message_type == "train":
                info, requests = unpack_requests(each.content)
                self.asked[each.metadata.message_id] = requests[0].client, info.server_round
                self.newest = max(self.newest, info.server_round)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        if self.newest >= self.killed_at:
            raise KeyboardInterrupt
        held = {each for each in message_ids if self.until.get(self.asked.get(each, (0, 0)), 0) > self.newest}
        return super().pull_messages([each for each in message_ids if each not in held])


def run(config: dict[str, Any], state: Path, **options: Any) -> tuple[dict[str, Any], list[RoundRecord]]:
    grid = RealNodes(config, state, options.pop("until", {}))
    grid.killed_at = options.pop("killed_at", math.inf)
    try:
        run_server(grid, config)
    except KeyboardInterrupt:
        assert grid.killed_at < math.inf
    folder = Path(config["run-dir"])
    return result_of(folder), list(read_run(folder).rounds)


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian"])
def test_where_every_round_waits_for_all_the_hash_is_that_of_the_simulation(
    tiny: Make, tmp_path: Path, strategy: str
) -> None:
    """Also with two clients a node; and clients' momentum is that of their newest update."""
    given: dict[str, Any] = {"strategy": strategy, "keep_optimizer": True}
    run_in_process(tiny(**given, run_dir=str(tmp_path / "simulated")))
    found, rows = run(tiny(**given, buffer_size=4, run_dir=str(tmp_path / "real")), tmp_path / "state")
    assert found["weights_sha256"] == result_of(tmp_path / "simulated")["weights_sha256"]
    assert [row.train["staleness"] for row in rows[1:]] == [0.0, 0.0]
    assert found["remarks"] == []


def test_a_killed_run_goes_on_with_what_clients_remembered_at_its_checkpoint(
    tiny: Make, tmp_path: Path
) -> None:
    """Client 1 is under way at the checkpoint of round 2, and counts and begins again before the kill.

    Then it has saved two states since the one that the checkpoint names, which it must have kept.
    """
    keys: dict[str, Any] = {
        "num_clients": 2, "buffer_size": 1, "keep_optimizer": True, "checkpoint_every": 2,
        "keep_checkpoints": 1, "num_server_rounds": 6, "optimizer_options": "momentum = 0.9",
    }  # fmt: skip
    until = {(0, 1): 2, (1, 2): 3}
    cut, rows = run(tiny(**keys), tmp_path / "state", until=until, killed_at=4)
    assert cut["status"] == "unfinished"
    assert [(row.clients, row.train["staleness"]) for row in rows[1:]] == [((1,), 0), ((0,), 1), ((1,), 1)]
    result, rows = run(tiny(**keys, resume=True), tmp_path / "state")
    assert result["status"] == "completed"
    assert result["lost_states"] == []
    assert [row.server_round for row in rows] == list(range(7))
    assert rows[3].clients == (1,), "what was under way is asked first"
    assert not any(row.failures for row in rows)
    assert result["remarks"] == [
        "this run does not repeat: updates count in the order in which real nodes were done (buffer-size)"
    ]


def test_who_trains_is_not_asked_to_evaluate(tiny: Make, tmp_path: Path) -> None:
    config = tiny(
        num_clients=2, buffer_size=1, fraction_evaluate=1.0, local_test_fraction=0.2, num_server_rounds=3
    )
    _, rows = run(config, tmp_path / "state", until={(0, 1): 3})
    assert [(row.clients, row.by_client["client"]) for row in rows[1:3]] == [((1,), [1])] * 2
    assert not any(row.failures for row in rows)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"client_speeds": "seconds = 1.0"}, "client-speeds and availability are of simulated clients"),
        ({"availability": "share = 0.5"}, "client-speeds and availability are of simulated clients"),
        ({"oversample": 1.5}, "oversample must be 1 with buffer-size"),
    ],
)
def test_what_is_of_simulations_is_refused_on_real_nodes(
    tiny: Make, tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run(tiny(buffer_size=2, **keys), tmp_path / "state")
