"""Nodes that list their clients, each with data of its own."""

from typing import Any

import pytest
from scripted_grid import Answer, ScriptedGrid

from server.node_registry import NodeRegistry
from strategies.wire.node import NodeDescription


def node(partition: int, *clients: int, num_partitions: int = 2, **changes: Any) -> Answer:
    said = {"own_data": True, "data": "", "state": (), "clients": clients, **changes}
    description = NodeDescription(partition_id=partition, num_partitions=num_partitions, **said)
    return lambda _: description.pack()


def asked(grid: ScriptedGrid, num_clients: int = 5, **options: Any) -> NodeRegistry:
    known = NodeRegistry(num_clients, "", (), interchangeable=False, **options)
    known.wait_for_all(grid, timeout=0.1, min_clients=1)
    return known


def test_clients_live_where_they_are_listed() -> None:
    grid = ScriptedGrid({17: node(0, 1, 4, 0), 42: node(1, 2)})
    known = asked(grid)
    assert known.hosts() == (0, 1, 2, 4)
    assert known.assign(range(5), grid.get_node_ids()) == {17: [0, 1, 4], 42: [2]}
    assert known.why_away(3) == "no node says that it lives there"
    del grid.nodes[17]
    known.update(grid)
    assert known.hosts() == (2,)
    assert known.why_away(4) == "its node has gone"
    assert known.assign(range(5), grid.get_node_ids()) == {42: [2]}
    grid.nodes[18] = node(0, 3, 4)  # started anew with other clients
    known.update(grid)
    assert known.hosts() == (2, 3, 4)
    assert known.why_away(0) == "no node says that it lives there"


def test_a_node_that_is_yet_to_come_has_the_clients_of_its_number_until_it_lists_them() -> None:
    grid = ScriptedGrid({17: node(0, 1, 4, 0)})
    known = asked(grid)
    assert [known.why_away(client) for client in (2, 3)] == [
        "no node says that it lives there",
        "its node has not connected",
    ]


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (node(1, 0, 3), "its client 0 is that of node 17, which is there"),
        (node(1, own_data=False), "its client 1 is that of node 17, which is there"),
        (node(1, 5), "its client 5 is not one of 0 to 4, as num-clients is 5"),
        (node(1, -1), "its client -1 is not one of 0 to 4, as num-clients is 5"),
        (node(1, 3, 3), "it lists a client twice"),
        (node(1, 3, own_data=False), "it lists its clients, and has no data of theirs"),
        (
            node(1),
            "it has its own data, so it is one client: set num-clients=2, or start the nodes with clients",
        ),
    ],
)
def test_a_node_that_lists_what_cannot_be_is_left_out(second: Answer, why: str) -> None:
    known = asked(ScriptedGrid({17: node(0, 1, 4, 0), 42: second}))
    assert known.partitions == {17: 0}
    assert known.refusals.now[42].reason.startswith(why)


def test_nodes_of_a_simulation_do_not_train_on_each_others_data() -> None:
    own = {"own_data": True, "data": "", "state": ()}
    plain = {17: node(0, num_partitions=2, **own), 42: node(1, num_partitions=2, **own)}
    known = NodeRegistry(2, "", (), interchangeable=True)
    known.wait_for_all(ScriptedGrid(plain), timeout=5)
    assert known.assign([1], [17, 42]) == {42: [1]}
