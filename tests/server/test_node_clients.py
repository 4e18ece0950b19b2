"""Nodes that claim clients which the SuperLink's owner has given to other keys."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from beating_grid import BeatingGrid
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from scripted_grid import Answer
from test_node_registry import node, node_registry

from models.core.errors import UserError
from server.node_clients import FILE, NodeClients, client_ranges, clients_of, fingerprint_of
from server.node_registry import NodeRegistry
from strategies.wire.node import NodeError

KEYS = [public_key_to_bytes(generate_key_pairs()[1]) for _ in range(3)]
A, B, _ = NAMES = [fingerprint_of(key) for key in KEYS]


@dataclass
class Listed:
    """A list of which clients keys may host, as it lies on the disk."""

    file: Path

    def write(self, **clients: str) -> "Listed":
        lines = (
            f'"{key}" = "{clients[name]}"' for name, key in zip("abc", NAMES, strict=True) if name in clients
        )
        self.file.write_text("\n".join(lines), encoding="utf-8")
        return self

    def why_not(self, key: int, *place: int, num_clients: int = 4) -> str:
        partition, of = place
        return NodeClients(self.file).why_not(KEYS[key], clients_of((partition, of), num_clients))


@pytest.fixture
def listed(tmp_path: Path) -> Listed:
    return Listed(tmp_path / "clients.toml")


def test_a_key_hosts_its_own_clients_and_no_others(listed: Listed) -> None:
    listed.write(a="0,2", b="1")
    assert listed.why_not(0, 0, 2) == ""  # clients 0 and 2
    assert listed.why_not(0, 0, 4) == ""  # client 0
    assert listed.why_not(0, 1, 2) == f"it claims clients 1, 3, and its key {A} may host 0,2 alone"
    assert listed.why_not(0, 0, 1) == f"it claims clients 1, 3, and its key {A} may host 0,2 alone"
    assert listed.why_not(1, 1, 4) == ""
    assert listed.why_not(1, 1, 2) == f"it claims client 3, and its key {B} may host 1 alone"
    many = listed.why_not(1, 0, 1, num_clients=100)
    assert many.startswith("it claims clients 0, 2, 3, 4, 5 and 94 more, and its key")


def test_a_key_that_was_given_none_hosts_what_nobody_was_given(listed: Listed) -> None:
    listed.write(a="0,2")
    assert listed.why_not(2, 3, 4) == ""
    assert listed.why_not(2, 1, 2) == ""
    other = f"it claims client 2, which its key {NAMES[2]} was not given, and another was"
    assert listed.why_not(2, 2, 4) == other
    assert NodeClients(listed.file).why_not(b"no key", range(4)).startswith("it claims clients 0, 2, which")


def test_without_a_list_everybody_hosts_what_it_claims(listed: Listed) -> None:
    assert NodeClients().why_not(KEYS[0], range(4)) == ""
    assert listed.write().why_not(0, 0, 1) == ""


def test_a_list_that_is_not_there_lets_nobody_in(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed.why_not(0, 0, 1).startswith("nobody knows which clients it may host: the list of nodes'")
    monkeypatch.setenv(FILE, str(listed.file))
    with pytest.raises(UserError, match=r"clients\.toml is not there: put it back"):
        NodeClients.of_environment()
    listed.write()
    assert NodeClients.of_environment().read() == {}


def test_a_list_that_cannot_be_read_lets_nobody_in_and_says_so(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed.write(a="0").file.write_text("0-", encoding="utf-8")
    assert listed.why_not(0, 0, 1).startswith("nobody knows which clients it may host: the list of nodes'")
    monkeypatch.setenv(FILE, str(listed.file))
    with pytest.raises(UserError, match=r"the list of nodes' clients .* is not TOML"):
        NodeClients.of_environment()
    with pytest.raises(
        UserError, match=r"clients of SHA256:\S+ in .* must be numbers as in 0-3,7, got '3-1'"
    ):
        NodeClients(listed.write(a="3-1").file).read()


@pytest.mark.parametrize("wrong", ["", "x", "1,,2", "-1", "3-2", "1-2-3", "9" * 17, "1.5"])
def test_what_are_no_numbers(wrong: str) -> None:
    with pytest.raises(UserError, match="--clients must be numbers as in 0-3,7, got"):
        client_ranges(wrong, "--clients")


def test_numbers() -> None:
    assert client_ranges("0-3, 7", "") == (range(4), range(7, 8))


def knowing(
    listed: Listed, nodes: dict[int, Answer], monkeypatch: pytest.MonkeyPatch
) -> tuple[NodeRegistry, BeatingGrid]:
    """Return a registry that has waited for nodes of which each has the key of its place here."""
    grid = BeatingGrid(nodes, monkeypatch)
    grid.keys = dict(zip(nodes, KEYS, strict=False))
    known = node_registry(num_clients=2, may_host=NodeClients(listed.file))
    known.wait_for_all(grid, timeout=5, min_clients=1)
    return known, grid


def test_a_node_that_claims_anothers_clients_is_left_out_by_name_and_the_run_goes_on(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it answers first, and whether or not it fits otherwise."""
    lister = node(7, 8, own_data=True, clients=(0,))
    for impostor in (lister, node(0, 2), node(0, 2, data="other")):
        listed.write(b="0", c="1")
        known, grid = knowing(listed, {17: impostor, 42: node(0, 2), 900: node(1, 2)}, monkeypatch)
        assert known.partitions == {42: 0, 900: 1}
        (refusal,) = known.refusals.now.values()
        said = f"it claims client 0, which its key {A} was not given, and another was"
        assert refusal.line.endswith(f" cannot take part: {said}")
        # Nor does it get them when the other has gone, until the owner says so.
        grid.forget(42)
        known.update(grid)
        assert known.hosts() == (1,)
        assert known.why_away(0) == "its node has gone"
    listed.write(a="0", c="1")
    grid.start(17, node(0, 2))
    grid.sleep(2.0)  # a node is asked once a second at most
    known.update(grid)
    assert known.partitions == {17: 0, 900: 1}


def test_an_impostor_does_not_keep_the_run_from_waiting_for_the_node_it_poses_as(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = NodeError("its data is gone", "", (0, 2)).pack()
    listed.write(c="0")
    for impostor in (node(0, 2, data="other"), lambda _: broken):
        known, _ = knowing(listed, {17: impostor, 900: node(1, 2)}, monkeypatch)
        assert known.missing == [0]
        assert not known.refusals.places(2)
        assert known.why_away(0) == "its node has not connected"


def test_a_node_that_lists_its_clients_is_held_to_what_it_lists(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not to those that its number would stand for."""
    listed.write(a="1", b="0")
    for theirs, why in (((1,), ""), ((0, 1), "it claims client 0, and its key")):
        mine = node(0, 2, own_data=True, clients=theirs)
        known, _ = knowing(listed, {17: mine, 42: node(1, 2, own_data=True, clients=(0,))}, monkeypatch)
        assert (17 in known.partitions) == (not why)
        assert all(why in each.reason for each in known.refusals.now.values())
    other_data = node(0, 2, own_data=True, clients=(1,), state=("another",))
    known, _ = knowing(listed, {17: other_data, 42: node(1, 2, own_data=True, clients=(0,))}, monkeypatch)
    (refusal,) = known.refusals.now.values()
    assert "it claims" not in refusal.reason


def test_a_partition_id_is_only_a_name_of_a_node_that_lists_its_clients(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes first, and whether or not the others list theirs, it keeps nobody out."""
    listed.write(a="2", b="0", c="1")
    lister = node(0, 3, own_data=True, clients=(2,))
    for clients in ((), (0,)):
        owner = node(0, 3, own_data=True, clients=clients)
        nodes = {17: lister, 42: owner, 900: node(1, 3, own_data=True, clients=(1,) if clients else ())}
        for order in ((17, 42, 900), (900, 42, 17), (42, 17, 900)):
            grid = BeatingGrid({each: nodes[each] for each in order}, monkeypatch)
            grid.keys = dict(zip((17, 42, 900), KEYS, strict=True))
            known = node_registry(num_clients=3, may_host=NodeClients(listed.file))
            before = grid.now
            known.wait_for_all(grid, timeout=500)
            assert grid.now == before
            assert not known.refusals.now
            assert known.hosts() == (0, 1, 2)
            assert known.assign(range(3), nodes) == {42: [0], 900: [1], 17: [2]}
            # Each is known again by its own clients.
            grid.start(17, lister)
            grid.sleep(2.0)
            known.update(grid)
            assert known.assign(range(3), nodes) == {42: [0], 900: [1], 17: [2]}
            grid.forget(42)
            grid.sleep(2.0)
            known.update(grid)
            assert known.hosts() == (1, 2)
            assert known.why_away(0) in ("its node has gone", "no node says that it lives there")


def test_a_node_that_lists_its_own_clients_and_does_not_fit_is_not_waited_for(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although its number would stand for a client of another key."""
    listed.write(a="1", b="0")
    other_model = node(0, 2, own_data=True, clients=(1,), state=("another",))
    grid = BeatingGrid({17: other_model, 42: node(1, 2, own_data=True, clients=(0,))}, monkeypatch)
    grid.keys = {17: KEYS[0], 42: KEYS[1]}
    known, before = node_registry(num_clients=2, may_host=NodeClients(listed.file)), grid.now
    known.wait_for_all(grid, timeout=500, min_clients=1)
    assert grid.now == before
    assert known.partitions == {42: 1}
    assert known.refusals.places(2).keys() == {0}
