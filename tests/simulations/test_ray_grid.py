"""What the workers of Ray's say of the node that they are, and reply together."""

import math
from collections.abc import Sequence

import pytest
from fake_ray import DIES, FINE, FakeRay, FakeWorkers, Says, cannot, put_in_place
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from server.errors import NodesFailedError
from simulations.runtime.ray_grid import RayGrid
from strategies.wire.node import NodeDescription, NodeError
from strategies.wire.reply import NodeReply
from strategies.wire.request import RoundInfo, pack_requests

FINE_ = NodeDescription.unpack(FINE)


def described(monkeypatch: pytest.MonkeyPatch, *says: Says, patience: float | None = 5.0) -> NodeDescription:
    """Return what a grid says of a node whose two workers, and those that replace them, say this."""
    ray = FakeRay(0, says=says)
    put_in_place(monkeypatch, ray)
    grid = RayGrid(FakeWorkers(ray, 2), stacked=False)
    (reply,) = grid.send_and_receive([Message(RecordDict(), 0, "query")], timeout=patience)
    return NodeDescription.unpack(reply.content)


@pytest.mark.parametrize("patience", [5.0, None])  # which is as long as it takes
def test_workers_that_say_the_same_are_one_node(
    monkeypatch: pytest.MonkeyPatch, patience: float | None
) -> None:
    assert described(monkeypatch, FINE, FINE, patience=patience) == FINE_


def test_one_worker_that_cannot_take_part_says_why_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NodeError, match=r"^MemoryError: no room for it$") as raised:
        described(monkeypatch, FINE, cannot("MemoryError: no room for it", "Traceback"))
    assert raised.value.whole == "Traceback"


def test_workers_that_differ_cannot_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    other = FINE_.model_copy(update={"data": "other"})
    with pytest.raises(NodeError, match="other code or data than one another"):
        described(monkeypatch, FINE, other.pack())


def test_workers_on_other_machines_are_named_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (FINE_.model_copy(update={"machine": machine}) for machine in ("old", "new"))
    together = FINE_.model_copy(update={"machine": "new; old"})
    assert described(monkeypatch, one.pack(), other.pack()) == together


def test_a_worker_that_dies_before_it_has_begun_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert described(monkeypatch, DIES, FINE, DIES) == FINE_
    with pytest.raises(
        NodeError, match=r"^a worker could not begin, 3 times in a row: it died or was killed"
    ):
        described(monkeypatch, *[DIES] * 5)


def test_workers_that_do_not_begin_are_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(0)
    put_in_place(monkeypatch, ray)
    workers = FakeWorkers(ray, 2)
    ray.actors[1].hangs = True
    with pytest.raises(NodeError, match=r"^not all of its workers began within 5 s; raise node-timeout"):
        workers.describe(5.0)


def round_of(
    monkeypatch: pytest.MonkeyPatch,
    ray: FakeRay,
    clients: Sequence[int] = range(12),
    client_seconds: float = math.inf,
    *,
    stacked: bool = False,
    message_type: str = "train",
) -> NodeReply:
    """Return what one worker replies for clients that it is asked to train."""
    put_in_place(monkeypatch, ray)
    asked = RecordDict({"arrays": ArrayRecord(), "config": ConfigRecord()})
    info = RoundInfo(1, 0, "/nowhere", seconds_left=50.0, client_seconds=client_seconds)
    content = pack_requests([(client, asked) for client in clients], info)
    grid = RayGrid(FakeWorkers(ray, 1), stacked=stacked, stack_size=5)
    (reply,) = grid.send_and_receive([Message(content, 0, message_type)], timeout=100.0)
    return NodeReply.unpack(reply.content)


def test_what_was_done_and_lost_with_a_worker_that_hangs_is_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Client 7 hangs until nobody waits any more; the sum of clients 0 to 5 lies in its worker."""
    ray = FakeRay(0, hanging=[7])
    reply = round_of(monkeypatch, ray)
    assert ray.asked.count((0, 1, 2, 3, 4, 5)) == 2
    assert [each.client for each in reply.replies] == [0, 1, 2, 3, 4, 5]
    assert reply.total is not None
    assert reply.total.high.tolist() == [63.0]
    why = {each.client: each.error for each in reply.failures}
    assert why.keys() == {6, 7, 8, 9, 10, 11}
    assert why[6] == why[7] == "its worker did not answer within 100 s (round-timeout + round-grace)"
    assert why[11] == "its turn did not come within 100 s (round-timeout + round-grace)"


def test_a_second_hang_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = round_of(monkeypatch, FakeRay(0, hanging=[7, 5]))
    why = {each.client: each.error for each in reply.failures}
    assert len(why) == 12
    assert why[5] == "its worker did not answer within 100 s (round-timeout + round-grace)"
    assert reply.replies == []


def test_clients_are_dealt_alone_where_each_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(0)
    round_of(monkeypatch, ray)
    assert max(map(len, ray.asked)) == 6
    ray = FakeRay(0, hanging=[5])
    reply = round_of(monkeypatch, ray, client_seconds=7.0)
    assert set(ray.asked) == {(client,) for client in range(12)}
    assert (reply.failures, ray.now) == ([], 7.0)


def test_only_training_is_done_in_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(0)
    round_of(monkeypatch, ray, stacked=True)
    assert ray.asked == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    ray = FakeRay(0)
    round_of(monkeypatch, ray, stacked=True, message_type="evaluate")
    assert max(map(len, ray.asked)) == 6


def test_a_worker_that_cannot_be_replaced_ends_the_run_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NodesFailedError, match=r"^a worker could not begin, 3 times in a row: it died"):
        round_of(monkeypatch, FakeRay(0, deadly=[3], says=[FINE, DIES, DIES, DIES]))
