"""Who lives where, asked of nodes that a test scripts."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from scripted_grid import Answer, ScriptedGrid

from models.core.config import Value
from server.app import app as server_app
from server.errors import RunFailedError
from server.node_registry import NodeRegistry
from simulations.runtime.in_process import InProcessGrid
from strategies.wire.node import NodeDescription

DATA, STATE = "abc", ("w float32 (3,)",)
NODE_UNAVAILABLE = 5
"""Flower's error code for a node that has gone."""


def node(partition: int, num_partitions: int = 3, **changes: Any) -> Answer:
    """Return a node that describes itself, by default as it should."""
    alike = {"own_data": False, "data": DATA, "state": STATE}
    description = NodeDescription(
        partition_id=partition, num_partitions=num_partitions, **{**alike, **changes}
    )
    return lambda _: description.pack()


def failing(code: int, reason: str) -> Answer:
    return lambda _: Error(code, reason)


def node_registry(num_clients: int = 7, interchangeable: bool = False) -> NodeRegistry:
    return NodeRegistry(num_clients, DATA, STATE, interchangeable)


def waited(grid: ScriptedGrid, **options: Any) -> NodeRegistry:
    known = node_registry(**options)
    known.wait_for_all(grid, timeout=5)
    return known


def test_every_node_is_asked_once() -> None:
    grid = ScriptedGrid({900: node(2), 17: node(0), 42: node(1)})
    known = waited(grid)
    assert known.partitions == {900: 2, 17: 0, 42: 1}
    known.refresh(grid, grid.get_node_ids(), timeout=1)
    assert [message.metadata.dst_node_id for message in grid.sent] == [900, 17, 42]
    assert {message.metadata.message_type for message in grid.sent} == {"query"}


def test_it_waits_for_nodes_that_appear_later() -> None:
    grid = ScriptedGrid({900: node(2)})

    def and_another(message: Message) -> Any:
        grid.nodes |= {17: node(0), 42: node(1)}
        return node(2)(message)

    grid.nodes[900] = and_another
    assert sorted(waited(grid).partitions.values()) == [0, 1, 2]


def test_client_c_lives_on_the_node_with_partition_id_c_modulo_their_number() -> None:
    grid = ScriptedGrid({900: node(2), 17: node(0), 42: node(1)})
    known = waited(grid)
    assert known.hosts(grid.get_node_ids()) == (0, 1, 2, 3, 4, 5, 6)
    assert known.assign(range(7), grid.get_node_ids()) == {17: [0, 3, 6], 42: [1, 4], 900: [2, 5]}
    assert known.assign({5, 2, 3}, grid.get_node_ids()) == {900: [2, 5], 17: [3]}


def test_clients_of_a_node_that_is_away_are_away() -> None:
    known = waited(ScriptedGrid({900: node(2), 17: node(0), 42: node(1)}))
    assert known.hosts([900, 17]) == (0, 2, 3, 5, 6)
    assert known.hosts([]) == ()
    assert known.hosts([900, 17, 42, 5]) == (0, 1, 2, 3, 4, 5, 6)  # 5 has not said who it is


def test_interchangeable_nodes_share_any_clients_evenly() -> None:
    grid = ScriptedGrid({900: node(2), 17: node(0), 42: node(1)})
    known = waited(grid, interchangeable=True)
    assert known.hosts([17]) == (0, 1, 2, 3, 4, 5, 6)
    # Clients 0, 3 and 6 would all live on one node of a real federation.
    assert known.assign([6, 0, 3], grid.get_node_ids()) == {17: [0], 42: [3], 900: [6]}
    assert known.assign(range(5), [42, 17]) == {17: [0, 2, 4], 42: [1, 3]}


def test_there_may_be_more_interchangeable_nodes_than_clients() -> None:
    grid = ScriptedGrid({900: node(2), 17: node(0), 42: node(1)})
    known = waited(grid, num_clients=1, interchangeable=True)
    assert known.assign([0], grid.get_node_ids()) == {17: [0]}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (node(1, 4), "partition-id 1 says num-partitions=4, others say 3"),
        (node(3), "partition-id 3 is not one of 0 to 2"),
        (node(0), "two nodes have partition-id 0"),
        (node(1, state=("w float32 (4,)",)), "partition-id 1 builds another model than the server"),
        (node(1, data="xyz"), "partition-id 1 loaded other data than the server"),
        (node(1, **{"own_data": True}), "has its own data, so it is one client: set num-clients=3"),
        (
            lambda _: RecordDict({"node": ConfigRecord({"description": "{}"})}),
            "a node cannot take part: it describes itself in another way: do server and nodes have the same",
        ),
        (failing(2, "UserError: no such dataset"), "a node cannot take part: UserError: no such dataset"),
    ],
)
def test_a_node_that_does_not_fit_ends_the_run(second: Answer, message: str) -> None:
    with pytest.raises(RunFailedError, match=message):
        waited(ScriptedGrid({17: node(0), 42: second}))


def test_fewer_clients_than_nodes_ends_the_run() -> None:
    with pytest.raises(RunFailedError, match="num-clients is 2, fewer than the 3 nodes that host them"):
        waited(ScriptedGrid({17: node(0)}), num_clients=2)


def test_nodes_with_their_own_data_need_not_have_the_servers() -> None:
    own = {"own_data": True, "data": "xyz"}
    grid = ScriptedGrid({17: node(0, **own), 42: node(1, **own), 900: node(2, **own)})
    known = waited(grid, num_clients=3)
    assert known.assign(range(3), grid.get_node_ids()) == {17: [0], 42: [1], 900: [2]}


def test_missing_nodes_are_named_when_time_is_up() -> None:
    with pytest.raises(RunFailedError, match=r"within 0.2 s: partition-ids \[0, 2\] are missing"):
        node_registry().wait_for_all(ScriptedGrid({42: node(1)}), timeout=0.2)
    with pytest.raises(RunFailedError, match=r"within 0.1 s: none has connected"):
        node_registry().wait_for_all(ScriptedGrid({}), timeout=0.1)


def test_nodes_that_answer_at_the_last_moment_have_answered() -> None:
    def slow(message: Message) -> Any:
        time.sleep(0.2)
        return node(0, 1)(message)

    known = node_registry()
    known.wait_for_all(ScriptedGrid({17: slow}), timeout=0.1)
    assert known.partitions == {17: 0}


def test_a_node_that_comes_back_under_another_id_takes_its_old_place() -> None:
    grid = ScriptedGrid({17: node(0), 42: node(1), 900: node(2)})
    known = waited(grid)
    del grid.nodes[42]
    grid.nodes[43] = node(1)  # a SuperNode without authentication gets a new id at every start
    known.refresh(grid, grid.get_node_ids(), timeout=1)
    assert known.hosts(grid.get_node_ids()) == (0, 1, 2, 3, 4, 5, 6)
    assert known.assign([1, 4], grid.get_node_ids()) == {43: [1, 4]}


def test_a_newcomer_that_goes_before_it_answers_does_not_end_the_run() -> None:
    grid = ScriptedGrid({17: node(0), 42: node(1), 900: node(2)})
    known = waited(grid)
    del grid.nodes[42]
    grid.nodes[43] = failing(NODE_UNAVAILABLE, "Node Unavailable - The destination node failed to report")
    known.refresh(grid, grid.get_node_ids(), timeout=1)
    assert known.hosts(grid.get_node_ids()) == (0, 2, 3, 5, 6)


def test_a_node_that_goes_while_the_run_starts_is_waited_for() -> None:
    grid = ScriptedGrid({17: node(0), 42: node(1)})

    def goes_and_comes_back(_: Message) -> Error:
        del grid.nodes[900]
        grid.nodes[901] = node(2)
        return Error(NODE_UNAVAILABLE, "Node Unavailable - The destination node failed to report")

    grid.nodes[900] = goes_and_comes_back
    assert sorted(waited(grid).partitions.values()) == [0, 1, 2]


class OneNodeGoes(InProcessGrid):
    """Two nodes with a disk each, of which one goes for good after the first round."""

    interchangeable_nodes = False

    def answers(self, messages: Iterable[Message], timeout: float | None) -> Iterator[Message]:
        """Let the node answer, and go."""
        asked = list(messages)
        yield from super().answers(asked, timeout)
        if any(message.metadata.message_type == "train" for message in asked):
            self.contexts.pop(1, None)


def test_a_run_does_not_wait_for_ever_for_a_node_that_never_comes_back(
    tiny: Callable[..., dict[str, Value]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = iter(range(300))

    def short_sleep(_: float) -> None:
        time.sleep(0.01)
        next(pauses)  # StopIteration after three seconds

    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", short_sleep)
    config = tiny(num_server_rounds=3, node_timeout=0.5)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    with pytest.raises(RunFailedError, match=r"clients \[1, 3\]"):
        server_app(OneNodeGoes(config, 2), context)
    result = json.loads((Path(str(config["run-dir"])) / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["server_round"]) == ("failed", 1)
