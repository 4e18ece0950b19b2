"""A node that has not answered in time gets no more work until it has."""

import time
from collections.abc import Iterable

import pytest
from flwr.app import Error, Message, RecordDict
from scripted_grid import Answer, ScriptedGrid
from test_cohort import asking, failures, hosting

from server.cohort import CohortGrid
from server.cohort_result import CohortResult
from server.errors import RunFailedError
from server.node_registry import NodeRegistry
from strategies.wire.request import RoundInfo, unpack_requests


class Hanging:
    """A node that keeps silent while it hangs; what it was asked then, it answers late."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.hangs = answer, False
        self.late: Message | None = None

    def __call__(self, message: Message) -> RecordDict | Error | Message | None:
        if self.hangs:
            self.late = message
            return None
        return self.answer(message)


def grid_of(nodes: dict[int, Answer], interchangeable: bool) -> tuple[CohortGrid, ScriptedGrid]:
    grid = ScriptedGrid(nodes)
    registry = NodeRegistry(4, "", (), interchangeable=interchangeable)
    registry.wait_for_all(grid, timeout=5)
    return CohortGrid(grid, registry, round_grace=0.05), grid


def ask(grid: CohortGrid, server_round: int) -> CohortResult:
    return grid.exchange(asking([0, 1, 2, 3]), RoundInfo(server_round, 0, "/state"), 0.05)


def asked_in(grid: ScriptedGrid, server_round: int) -> dict[int, list[int]]:
    """Return node -> the clients that it was asked for in a round."""
    found = {}
    for message in grid.sent:
        if message.metadata.message_type == "train":
            info, requests = unpack_requests(message.content)
            if info.server_round == server_round:
                found[message.metadata.dst_node_id] = [each.client for each in requests]
    return found


def answer_late(grid: ScriptedGrid, node: Hanging) -> None:
    assert node.late is not None
    content = node.answer(node.late)
    assert isinstance(content, RecordDict)
    grid._answers[node.late.metadata.message_id] = Message(content, reply_to=node.late)


def test_the_clients_of_a_busy_node_fail_until_it_is_done() -> None:
    slow = Hanging(hosting(1, 2))
    grid, scripted = grid_of({7: hosting(0, 2), 8: slow}, interchangeable=False)
    slow.hangs = True
    why = (
        "its node did not answer within 0.1 s (round-timeout + round-grace), "
        "as one of its clients 1, 3 may hang"
    )
    assert failures(ask(grid, 1)) == {1: why, 3: why}
    result = ask(grid, 2)
    assert asked_in(scripted, 2) == {7: [0, 2]}
    assert failures(result) == dict.fromkeys((1, 3), "its node still works on round 1")
    assert {failure.node for failure in result.failures} == {8}
    slow.hangs = False
    answer_late(scripted, slow)
    result = ask(grid, 3)
    assert result.clients == [0, 1, 2, 3]
    # The late answer is no answer of round 3, whose clients are asked anew.
    assert asked_in(scripted, 3) == {7: [0, 2], 8: [1, 3]}


class Refusing(ScriptedGrid):
    """A grid whose SuperLink takes no message of training, or those to one node alone, as Flower tells it."""

    one = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        asked = list(messages)
        if asked and asked[0].metadata.message_type == "train":
            for number, message in enumerate(asked):
                message.metadata.__dict__["_message_id"] = f"unsent-{number}"
            if not self.one:
                return []  # HTTP 413
            return [
                super(Refusing, self).push_messages([each])[0]
                if each.metadata.dst_node_id != self.one
                else None  # type: ignore[misc]
                for each in asked
            ]
        return super().push_messages(asked)


@pytest.mark.parametrize("one", [0, 8])
def test_what_could_not_be_sent_is_said_at_once_and_keeps_no_node_busy(one: int) -> None:
    scripted = Refusing({7: hosting(0, 2), 8: hosting(1, 2)})
    scripted.one = one
    registry = NodeRegistry(4, "", (), interchangeable=False)
    registry.wait_for_all(scripted, timeout=5)
    grid = CohortGrid(scripted, registry, round_grace=600.0)
    clients = (1, 3) if one else range(4)
    for server_round in (1, 2):
        result = ask(grid, server_round)
        assert failures(result) == dict.fromkeys(clients, "its request could not be sent")
        assert not grid.busy.unanswered


def test_other_workers_take_over_where_they_can() -> None:
    slow = Hanging(hosting(1, 2))
    grid, scripted = grid_of({7: hosting(0, 2), 8: slow}, interchangeable=True)
    slow.hangs = True
    assert ask(grid, 1).clients == [0, 2]
    assert ask(grid, 2).clients == [0, 1, 2, 3]
    assert asked_in(scripted, 2) == {7: [0, 1, 2, 3]}


def test_where_all_nodes_are_busy_the_server_waits_for_the_first() -> None:
    slow = Hanging(hosting(0, 1))
    grid, scripted = grid_of({7: slow}, interchangeable=True)
    slow.hangs = True
    assert ask(grid, 1).clients == []
    started = time.monotonic()
    assert failures(ask(grid, 2)) == dict.fromkeys(range(4), "its node still works on round 1")
    assert 0.09 < time.monotonic() - started < 5
    slow.hangs = False
    answer_late(scripted, slow)
    assert ask(grid, 3).clients == [0, 1, 2, 3]


def test_a_busy_node_that_has_gone_is_forgotten() -> None:
    slow = Hanging(hosting(1, 2))
    grid, scripted = grid_of({7: hosting(0, 2), 8: slow}, interchangeable=False)
    slow.hangs = True
    ask(grid, 1)
    del scripted.nodes[8]
    assert failures(ask(grid, 2)) == dict.fromkeys((1, 3), "its node has gone")
    slow.hangs = False
    scripted.nodes[9] = slow
    grid.get_node_ids()
    assert ask(grid, 3).clients == [0, 1, 2, 3]


def test_late_answers_are_not_left_with_whoever_carries_them() -> None:
    """Each may be as large as a model; one may come after its node has gone."""
    slow, gone = Hanging(hosting(1, 3)), Hanging(hosting(2, 3))
    grid, scripted = grid_of({7: hosting(0, 3), 8: slow, 9: gone}, interchangeable=False)
    slow.hangs = gone.hangs = True
    ask(grid, 1)
    slow.hangs = False
    answer_late(scripted, slow)
    del scripted.nodes[9]
    ask(grid, 2)
    answer_late(scripted, gone)
    ask(grid, 3)
    assert not scripted._answers
    assert not grid.busy.unanswered
    assert not grid.busy.to_drop


def test_a_worker_that_died_while_nobody_waited_ends_the_run() -> None:
    slow = Hanging(hosting(1, 2))
    grid, scripted = grid_of({7: hosting(0, 2), 8: slow}, interchangeable=False)
    grid.busy.simulated = True
    slow.hangs = True
    ask(grid, 1)
    assert slow.late is not None
    died = Message(Error(0, "<class 'ray.exceptions.ActorDiedError'>:<'gone'>"), reply_to=slow.late)
    scripted._answers[slow.late.metadata.message_id] = died
    with pytest.raises(RunFailedError, match=r"a worker died or was killed while it worked for an earlier"):
        ask(grid, 2)
