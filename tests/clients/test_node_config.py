"""What a node is started with: read by type, in one place."""

from pathlib import Path

import pytest

from clients.node_config import NodeConfig
from models.core.errors import UserError


def test_all_that_a_node_may_be_given() -> None:
    given = {"partition-id": 2, "num-partitions": 3, "data-path": "/data", "state-path": "/state"}
    node = NodeConfig.from_flower({**given, "debug": True})
    assert node == NodeConfig(2, 3, "/data", Path("/state"))
    assert NodeConfig.from_flower({"keep-state-days": 30}).keep_state_days == 30
    assert (node.place, node.state_root) == ((2, 3), Path("/state"))


def test_state_lies_below_the_home_folder_unless_the_node_says_where() -> None:
    assert NodeConfig.from_flower({}).state_root == Path.home() / ".polyfed" / "state"


@pytest.mark.parametrize("given", [{}, {"partition-id": 0}, {"num-partitions": 3}])
def test_a_node_without_its_numbers_says_how_it_is_to_be_started(given: dict[str, object]) -> None:
    with pytest.raises(UserError, match='--node-config "partition-id=0 num-partitions=3"'):
        _ = NodeConfig.from_flower(given).place


@pytest.mark.parametrize(
    ("key", "value", "called"),
    [
        ("partition-id", "0", "a whole number"),
        ("partition-id", True, "a whole number"),
        ("num-partitions", 3.0, "a whole number"),
        ("data-path", 7, "text"),
        ("state-path", False, "text"),
        ("keep-state-days", 0.5, "a whole number of days"),
    ],
)
def test_a_value_of_another_type_is_named(key: str, value: object, called: str) -> None:
    with pytest.raises(UserError, match=f"^{key} in --node-config must be {called}, got {value!r}$"):
        NodeConfig.from_flower({key: value})


def test_state_is_kept_a_day_at_least() -> None:
    with pytest.raises(UserError, match=r"^keep-state-days in --node-config must be at least 1, got 0$"):
        NodeConfig.from_flower({"keep-state-days": 0})


@pytest.mark.parametrize("named", ["/elsewhere", "../elsewhere", "run/../../elsewhere", "", "."])
def test_a_server_names_no_folder_outside_of_the_nodes(named: str) -> None:
    with pytest.raises(UserError, match="which is not below /state"):
        NodeConfig(state_path=Path("/state")).states_of(named)


def test_where_states_lie() -> None:
    assert NodeConfig(state_path=Path("/state")).states_of("run-0a") == Path("/state/run-0a")
    assert NodeConfig().states_of("/runs/1/clients") == Path("/runs/1/clients")  # of a run on the same disk
    with pytest.raises(UserError):
        NodeConfig().states_of("../run")
