"""What the workers of Ray's say of the node that they are."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from ray.exceptions import GetTimeoutError, RayActorError

from simulations.config import ResolvedSimulation
from simulations.runtime import ray_grid
from simulations.runtime.ray_grid import RayGrid
from simulations.runtime.ray_workers import RayWorkers, Seat
from strategies.wire.node import NodeDescription, NodeError

FINE = NodeDescription(partition_id=0, num_partitions=1, own_data=False, data="d", state=("s",))


def described(monkeypatch: pytest.MonkeyPatch, *answers: RecordDict | Exception) -> NodeDescription:
    """Return what a grid says of a node whose workers answer so."""

    def get(asked: Sequence[Any], timeout: float | None) -> list[Any]:
        assert timeout is None or int(timeout * 1000) < 2**63  # else Ray raises OverflowError
        if errors := [each for each in asked if isinstance(each, Exception)]:
            raise errors[0]
        return list(asked)

    def actor(answer: RecordDict | Exception) -> SimpleNamespace:
        return SimpleNamespace(describe=SimpleNamespace(remote=lambda: answer))

    monkeypatch.setattr(ray_grid, "ray", SimpleNamespace(get=get))
    seats = [Seat(number, actor(answer), None) for number, answer in enumerate(answers)]
    workers = RayWorkers({}, ResolvedSimulation(len(seats), 1, 0.0), seats)
    grid = RayGrid(workers, stacked=False)
    (reply,) = grid.send_and_receive([Message(RecordDict(), 0, "query")], timeout=5.0)
    grid.push_messages([Message(RecordDict(), 0, "query")])  # which waits as long as it takes
    return NodeDescription.unpack(reply.content)


def test_workers_that_say_the_same_are_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    assert described(monkeypatch, FINE.pack(), FINE.pack()) == FINE


def test_one_worker_that_cannot_take_part_says_why_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NodeError, match="no room for it") as raised:
        described(monkeypatch, FINE.pack(), NodeError("MemoryError: no room for it", "Traceback").pack())
    assert raised.value.whole == "Traceback"


def test_workers_that_differ_cannot_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    other = FINE.model_copy(update={"data": "other"})
    with pytest.raises(NodeError, match="other code, data or machines"):
        described(monkeypatch, FINE.pack(), other.pack())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GetTimeoutError("Get timed out"), "not all of its workers began within 5 s; raise node-timeout"),
        (RayActorError(), "a worker could not begin: it died or was killed: The actor "),
    ],
)
def test_a_worker_that_does_not_answer_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    with pytest.raises(NodeError, match=f"^{said}"):
        described(monkeypatch, FINE.pack(), error)
