"""Clients to the strategy, nodes to the network: messages go out packed and come back in client order."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.serverapp.strategy import FedAvg
from scripted_grid import Answer, ScriptedGrid

import server.cohort
from models.core.errors import UserError
from server.cohort import CohortGrid
from server.cohort_result import CohortResult
from server.errors import RunFailedError
from server.node_registry import NodeRegistry
from strategies.wire.arrays import to_arrays
from strategies.wire.exact_sum import ExactSum
from strategies.wire.node import NodeDescription
from strategies.wire.reply import NodeReply
from strategies.wire.request import FIXED, RoundInfo, unpack_requests

SUPERLINK = 1
"""The node id of whoever answers for a node that has gone."""


def hosting(
    partition: int,
    num_partitions: int,
    fail: frozenset[int] = frozenset(),
    weight: Callable[[int], int] | None = None,
) -> Answer:
    """Return a node whose client c replies with arrays full of c, weighted by c + 1, and loss 10 c."""

    def answer(message: Message) -> RecordDict:
        if message.metadata.message_type == "query":
            return NodeDescription(
                partition_id=partition, num_partitions=num_partitions, own_data=False, data="", state=()
            ).pack()
        info, requests = unpack_requests(message.content)
        reply = NodeReply(
            total=ExactSum() if info.weighted_by else None,
            weighted_by=info.weighted_by,
            seconds=partition + 0.5,
        )
        for client in (request.client for request in requests):
            if client in fail:
                reply.fail(client, ValueError("no"))
                continue
            metrics = MetricRecord(
                {"num-examples": (weight or (lambda c: c + 1))(client), "loss": 10.0 * client}
            )
            arrays = {"w": np.full(2, client, np.float32)}
            reply.add(client, RecordDict({"metrics": metrics}), arrays)
        return reply.pack()

    return answer


def cohort_grid(nodes: dict[int, Answer], num_clients: int = 9, **options: object) -> CohortGrid:
    """Return a grid over scripted nodes that have told who they are."""
    grid = ScriptedGrid(nodes)
    node_registry = NodeRegistry(num_clients, "", (), interchangeable=False)
    node_registry.wait_for_all(grid, timeout=5)
    grid.sent.clear()
    return CohortGrid(grid, node_registry, **options)  # type: ignore[arg-type]


def three_nodes(**options: object) -> dict[int, Answer]:
    return {node_id: hosting(place, 3, **options) for node_id, place in ((900, 2), (17, 0), (42, 1))}  # type: ignore[arg-type]


def asking(clients: list[int], message_type: str = "train") -> list[Message]:
    """Return the same arrays to all clients, as strategies make their messages."""
    arrays = ArrayRecord({"w": Array(np.zeros(2, np.float32))})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    return [Message(content, client, message_type) for client in clients]


def exchange(
    grid: CohortGrid, messages: list[Message], weighted_by: str = "", timeout: float = 300.0
) -> CohortResult:
    return grid.exchange(messages, RoundInfo(1, 0, "/state", weighted_by), timeout)


def failures(result: CohortResult) -> dict[int, str]:
    return {failure.client: failure.error for failure in result.failures}


def scripted(grid: CohortGrid) -> ScriptedGrid:
    assert isinstance(grid.grid, ScriptedGrid)
    return grid.grid


def test_a_strategy_sees_clients_in_order() -> None:
    assert list(cohort_grid(three_nodes()).get_node_ids()) == list(range(9))


def test_one_message_a_node_with_the_arrays_once() -> None:
    grid = cohort_grid(three_nodes())
    result = exchange(grid, asking([8, 0, 3, 4]), "num-examples")
    sent = {message.metadata.dst_node_id: message for message in scripted(grid).sent}
    assert {node: [each.client for each in unpack_requests(m.content)[1]] for node, m in sent.items()} == {
        17: [0, 3],
        42: [4],
        900: [8],
    }
    assert all(len(message.content.array_records) == 1 for message in sent.values())
    info, _ = unpack_requests(sent[17].content)
    assert info == RoundInfo(1, 0, "/state", "num-examples", seconds_left=300.0)
    one_message = sum(len(array.data) for array in sent[17].content["record-0"].values())  # type: ignore[union-attr]
    assert result.bytes_down == 3 * one_message


def test_every_node_gets_the_fixed_weights_once() -> None:
    grid = cohort_grid(three_nodes(), fixed={"frozen": torch.ones(1000)})
    result = exchange(grid, asking([8, 0, 3, 4]))
    for message in scripted(grid).sent:
        assert to_arrays(message.content.array_records[FIXED])["frozen"].tolist() == [1.0] * 1000
    assert 3 * 4000 < result.bytes_down < 3 * 4000 + 3000
    assert [set(reply.content.array_records["arrays"]) for reply in result.replies] == [{"w"}] * 4


@pytest.mark.parametrize("backwards", [False, True])
def test_replies_come_in_client_order_however_they_arrive(backwards: bool) -> None:
    grid = cohort_grid(three_nodes())
    scripted(grid).backwards = backwards
    result = exchange(grid, asking([7, 2, 0, 5, 1]))
    replies = result.replies
    assert [reply.metadata.src_node_id for reply in replies] == [0, 1, 2, 5, 7]
    assert [reply.content["arrays"]["w"].numpy()[0] for reply in replies] == [0, 1, 2, 5, 7]  # type: ignore[index,union-attr]
    assert result.clients == [0, 1, 2, 5, 7]
    assert result.node_seconds == 2.5
    assert result.bytes_up == 5 * len(replies[0].content["arrays"]["w"].data)  # type: ignore[index,union-attr]


def test_a_client_that_fails_is_an_error_for_it_alone() -> None:
    grid = cohort_grid(three_nodes(fail=frozenset({3})))
    result = exchange(grid, asking([0, 3, 4, 6]))
    replies = result.replies
    assert [reply.has_error() for reply in replies] == [False, True, False, False]
    assert replies[1].error.reason == "client 3: ValueError: no"
    assert result.clients == [0, 4, 6]
    assert failures(result) == {3: "ValueError: no"}


def test_what_befalls_a_node_befalls_its_clients() -> None:
    grid = cohort_grid(three_nodes())
    scripted(grid).nodes[17] = lambda _: Error(2, "<class 'x'>:<'Traceback:\n  a line\nKeyError: 'no key''>")
    scripted(grid).nodes[900] = lambda _: None
    result = exchange(grid, asking([0, 3, 4, 5]), timeout=0.05)
    assert result.clients == [4]
    assert failures(result) == {
        0: "KeyError: 'no key'",
        3: "KeyError: 'no key'",
        5: "its node did not answer within 0.05 s (round-timeout + round-grace)",
    }


def with_a_dead_worker(simulated: bool) -> CohortGrid:
    grid = cohort_grid(three_nodes())
    grid.busy.simulated = simulated
    scripted(grid).nodes[17] = lambda _: Error(
        0, "<class 'ray.exceptions.ActorDiedError'>:<'The actor died'>"
    )
    return grid


def test_a_worker_that_died_ends_the_run() -> None:
    with pytest.raises(RunFailedError, match=r"a worker died .* for clients 0, 3"):
        exchange(with_a_dead_worker(simulated=True), asking([0, 3, 4]))


def test_a_real_node_that_speaks_of_a_dead_worker_fails_its_clients_alone() -> None:
    result = exchange(with_a_dead_worker(simulated=False), asking([0, 3, 4]))
    assert result.clients == [4]
    assert [each.client for each in result.failures] == [0, 3]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (2, "<class 'ray.exceptions.OutOfMemoryError'>:<'of a client'>"),
        (2, "torch.OutOfMemoryError: CUDA out of memory"),
        (0, "ValueError: see ray.exceptions.ActorDiedError, OutOfMemoryError"),
    ],
)
def test_words_of_a_client_end_no_run(code: int, reason: str) -> None:
    """Only Flower's simulation says that a worker died: by a code, and the type of what Ray has raised."""
    grid = with_a_dead_worker(simulated=True)
    scripted(grid).nodes[17] = lambda _: Error(code, reason)
    result = exchange(grid, asking([0, 3, 4]))
    assert result.clients == [4]
    assert failures(result) == {0: reason.removesuffix("'>"), 3: reason.removesuffix("'>")}


def test_a_weighted_mean_comes_as_one_reply() -> None:
    grid = cohort_grid(three_nodes(fail=frozenset({4})))
    result = exchange(grid, asking(list(range(9))), "num-examples")
    replies = result.replies
    assert [reply.has_error() for reply in replies] == [False, True]
    # Sum of c (c + 1) over sum of c + 1, without client 4: 220 / 40.
    assert replies[0].content["arrays"]["w"].numpy().tolist() == [5.5, 5.5]  # type: ignore[index,union-attr]
    assert dict(replies[0].content["metrics"]) == {"num-examples": 40.0, "loss": 55.0}  # type: ignore[call-overload]
    assert result.clients == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("num_clients", [3, 20])
def test_the_mean_does_not_depend_on_who_lives_where(num_clients: int) -> None:
    """With 20 clients a node of one sends a sum, three nodes send sums and updates; with 3 nobody sums."""
    means = []
    for num_nodes in (1, 2, 3):
        nodes = {
            10 + place: hosting(place, num_nodes, weight=lambda c: 7 * c + 3) for place in range(num_nodes)
        }
        grid = cohort_grid(nodes, num_clients)
        (reply,) = exchange(grid, asking(list(range(num_clients))), "num-examples").replies
        means.append(reply.content["arrays"]["w"].numpy().tobytes())  # type: ignore[index,union-attr]
    assert len(set(means)) == 1


def test_fedavg_gets_the_same_from_one_mean_as_from_every_reply() -> None:
    results = []
    for weighted_by in ("", "num-examples"):
        replies = exchange(cohort_grid(three_nodes()), asking([1, 2, 4]), weighted_by).replies
        arrays, metrics = FedAvg().aggregate_train(1, replies)
        assert arrays is not None
        assert metrics is not None
        results.append([*arrays["w"].numpy(), metrics["loss"]])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-7)
    np.testing.assert_allclose(results[1], [28 / 10, 28 / 10, 280 / 10])


def test_evaluation_is_never_averaged_away() -> None:
    grid = cohort_grid(three_nodes())
    result = exchange(grid, asking(list(range(9)), "evaluate"), "num-examples")
    assert [reply.metadata.src_node_id for reply in result.replies] == list(range(9))
    assert unpack_requests(scripted(grid).sent[0].content)[0].weighted_by == ""


@pytest.mark.parametrize("weighted_by", ["num-examples", ""])
def test_clients_that_all_say_they_have_no_examples_have_failed(weighted_by: str) -> None:
    """A single one could end a run by that otherwise; min-replies and short-rounds say what comes of it."""
    grid = cohort_grid(three_nodes(weight=lambda _: 0))
    result = exchange(grid, asking([0, 1, 3]), weighted_by)
    assert result.clients == []
    assert [each.client for each in result.failures] == [0, 1, 3]
    assert {each.error for each in result.failures} == {
        "it has no examples, as all that answered (num-examples is 0)"
    }
    assert [reply.has_error() for reply in result.replies] == [True, True, True]
    assert not result.num_examples
    assert not result.statistics


def test_nobody_asked_is_nobody_heard() -> None:
    grid = cohort_grid(three_nodes())
    assert exchange(grid, []) == CohortResult()
    assert scripted(grid).sent == []


def test_messages_cannot_be_pushed_one_by_one() -> None:
    grid = cohort_grid(three_nodes())
    for call in (grid.push_messages, grid.pull_messages):
        with pytest.raises(UserError, match=f"calls grid.{call.__name__}, and clients .*send_and_receive"):
            call([])


def test_a_strategy_may_ask_by_itself_and_every_client_answers() -> None:
    grid = cohort_grid(three_nodes(fail=frozenset({3})))
    with pytest.raises(UserError, match="asks clients before the first round has begun"):
        grid.send_and_receive(asking([0]))
    grid.begin_round(RoundInfo(1, 0, "/state", "num-examples"), timeout=300)
    asked = asking([4, 0, 3, 4])
    replies = grid.send_and_receive(asked)
    assert [reply.metadata.src_node_id for reply in replies] == [0, 3, 4, 4]
    assert [reply.has_error() for reply in replies] == [False, True, False, False]
    own = grid.exchange(asking([0, 1]), RoundInfo(1, 0, "/state", "num-examples"), 300)
    assert len(own.replies) == 1
    alone = exchange(cohort_grid(three_nodes()), asking([0, 1]))
    # What it moved, and who failed, counts with the next exchange: it sent the weights to two nodes.
    assert own.bytes_down == 2 * alone.bytes_down
    assert failures(own) == {3: "ValueError: no"}


def test_training_and_evaluation_may_be_asked_for_together() -> None:
    grid = cohort_grid(three_nodes())
    result = exchange(grid, [*asking([0, 1]), *asking([1, 2], "evaluate")])
    assert [reply.metadata.src_node_id for reply in result.replies] == [0, 1, 1, 2]
    assert sorted(message.metadata.message_type for message in scripted(grid).sent) == [
        *["evaluate"] * 2,
        *["train"] * 2,
    ]


class Clock:
    """A clock that stands still until a node works, which takes `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 100.0, seconds

    def perf_counter(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def ticks_in(self, answer: Answer) -> Answer:
        def later(message: Message) -> RecordDict | Error | Message | None:
            self.now += self.seconds * (message.metadata.message_type != "query")
            return answer(message)

        return later


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(2.0)
    monkeypatch.setattr(server.cohort, "time", clock)
    return clock


def times_sent(grid: CohortGrid) -> list[float]:
    """Return which time each message gave its node."""
    return [unpack_requests(message.content)[0].seconds_left for message in scripted(grid).sent]


def test_all_that_a_client_is_asked_in_a_round_has_the_time_of_one_round(clock: Clock) -> None:
    """A second request to a client goes out after the first, with what that has left; a third may not."""
    grid = cohort_grid({17: clock.ticks_in(hosting(0, 1))})
    again = asking([0])
    again[0].content.config_records["config"]["local-epochs"] = 2
    result = exchange(grid, [*asking([0, 1]), *again, *asking([0, 1, 2], "evaluate")], timeout=3)
    assert times_sent(grid) == [3, 1]
    assert result.clients == [0, 0, 1]
    why = "what clients were asked before in the round took all its time (round-timeout)"
    assert failures(result) == dict.fromkeys((0, 1, 2), why)
    assert sum(reply.has_error() for reply in result.replies) == 3


def test_what_a_strategy_asks_by_itself_is_of_the_rounds_time(clock: Clock) -> None:
    grid = cohort_grid({17: clock.ticks_in(hosting(0, 1))})
    info = RoundInfo(1, 0, "/state")
    grid.begin_round(info, timeout=60)
    grid.send_and_receive(asking([0]))
    grid.send_and_receive(asking([0]), timeout=5)  # which limits this question alone
    grid.exchange(asking([0, 1]), info, 60)
    grid.begin_round(info, timeout=60)
    grid.exchange(asking([0, 1]), info, 60)
    assert times_sent(grid) == [60, 5, 56, 60]


def test_a_node_that_goes_between_sampling_and_sending_fails_only_its_clients() -> None:
    grid = cohort_grid(three_nodes())
    clients = list(grid.get_node_ids())
    del scripted(grid).nodes[42]
    result = exchange(grid, asking(clients))
    replies = result.replies
    assert result.clients == [0, 2, 3, 5, 6, 8]
    assert list(failures(result)) == [1, 4, 7]
    assert [reply.has_error() for reply in replies] == [False, True, False] * 3


def test_the_reason_why_a_node_has_gone_is_told() -> None:
    def unavailable(message: Message) -> Message:
        """Answer as the SuperLink does for a node that sent no heartbeat: in its own name."""
        metadata = Metadata(
            run_id=1,
            message_id="",
            src_node_id=SUPERLINK,
            dst_node_id=SUPERLINK,
            reply_to_message_id=message.metadata.message_id,
            group_id="",
            message_type=message.metadata.message_type,
            created_at=message.metadata.created_at,
            ttl=1.0,
        )
        return make_message(metadata=metadata, error=Error(5, "Node Unavailable"))

    grid = cohort_grid(three_nodes())
    scripted(grid).nodes |= {17: unavailable, 42: unavailable}
    result = exchange(grid, asking([0, 1, 2]), timeout=1)
    assert result.clients == [2]
    assert failures(result) == dict.fromkeys(
        (0, 1), "its node has gone, or was started anew, before it answered"
    )


def other_clients(message: Message) -> RecordDict:
    reply = NodeReply()
    reply.fail(7, ValueError("not asked"))
    return reply.pack()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda message: RecordDict(), "it has no plan, which says whose its records are: it has none"),
        (
            lambda message: RecordDict({"plan": ConfigRecord({"groups": "{"})}),
            "its plan has no text 'metrics'",
        ),
        (lambda message: NodeReply().pack(), "it answers for clients [], and was asked for [1, 4]"),
        (other_clients, "it answers for clients [7], and was asked for [1, 4]"),
    ],
)
@pytest.mark.parametrize("weighted_by", ["", "num-examples"])
def test_a_reply_that_cannot_be_read_fails_the_clients_of_its_node_alone(
    answer: Answer, why: str, weighted_by: str
) -> None:
    nodes, described = three_nodes(), hosting(1, 3)
    nodes[42] = lambda message: (described if message.metadata.message_type == "query" else answer)(message)
    result = exchange(cohort_grid(nodes), asking([0, 1, 2, 4]), weighted_by)
    assert result.clients == [0, 2]
    assert list(failures(result)) == [1, 4]
    assert all(why in failure.error for failure in result.failures)
    assert all("Traceback" in failure.traceback for failure in result.failures)
