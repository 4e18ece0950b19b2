"""What a node is started with: read by type, in one place."""

from pathlib import Path

import pytest

from clients.node_config import NodeConfig, place_of
from models.core.errors import UserError


def test_all_that_a_node_may_be_given() -> None:
    given = {"partition-id": 2, "num-partitions": 3, "data-path": "/data", "state-path": "/state"}
    node = NodeConfig.from_flower({**given, "debug": True})
    assert node == NodeConfig(2, 3, "/data", Path("/state"))
    assert NodeConfig.from_flower({"keep-state-days": 30}).keep_state_days == 30
    assert (node.resident, node.resident_idle) == (False, 900)
    kept_warm = NodeConfig.from_flower({"resident": True, "resident-idle": 60})
    assert (kept_warm.resident, kept_warm.resident_idle) == (True, 60)
    assert (node.place, node.state_root) == ((2, 3), Path("/state"))


def test_state_lies_below_the_home_folder_unless_the_node_says_where() -> None:
    assert NodeConfig.from_flower({}).state_root == Path.home() / ".polyfed" / "state"


@pytest.mark.parametrize("given", [{}, {"partition-id": 0}, {"num-partitions": 3}])
def test_a_node_without_its_numbers_says_how_it_is_to_be_started(given: dict[str, object]) -> None:
    with pytest.raises(UserError, match='--node-config "partition-id=0 num-partitions=3"'):
        _ = NodeConfig.from_flower(given).place


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"partition-id": 2, "num-partitions": 3}, (2, 3)),
        ({"partition-id": 3, "num-partitions": 3}, None),
        ({"partition-id": "0", "num-partitions": 3}, None),
        ({}, None),
    ],
)
def test_the_place_of_a_node_that_cannot_take_part(
    given: dict[str, object], place: tuple[int, int] | None
) -> None:
    assert place_of(given) == place


@pytest.mark.parametrize(
    ("key", "value", "called"),
    [
        ("partition-id", "0", "a whole number"),
        ("partition-id", True, "a whole number"),
        ("num-partitions", 3.0, "a whole number"),
        ("data-path", 7, "text"),
        ("state-path", False, "text"),
        ("keep-state-days", 0.5, "a whole number of days"),
        ("resident", 1, "true or false"),
        ("resident-idle", 0.5, "a whole number of seconds"),
    ],
)
def test_a_value_of_another_type_is_named(key: str, value: object, called: str) -> None:
    with pytest.raises(UserError, match=f"^{key} in --node-config must be {called}, got {value!r}$"):
        NodeConfig.from_flower({key: value})


def test_state_is_kept_a_day_at_least() -> None:
    with pytest.raises(UserError, match=r"^keep-state-days in --node-config must be at least 1, got 0$"):
        NodeConfig.from_flower({"keep-state-days": 0})


@pytest.mark.parametrize(
    ("given", "allowed"),
    [({}, ()), ({"allow-code": "mine, other.part"}, ("mine", "other.part")), ({"allow-code": ""}, ())],
)
def test_modules_that_the_owner_allows(given: dict[str, object], allowed: tuple[str, ...]) -> None:
    assert NodeConfig.from_flower(given).allow_code == allowed


@pytest.mark.parametrize("given", ["mine/", "*", "a..b", ".", "mine:Class", "a b"])
def test_what_is_no_module_is_allowed_to_nobody(given: str) -> None:
    with pytest.raises(UserError, match=r"^allow-code in --node-config must be names of modules"):
        NodeConfig.from_flower({"allow-code": given})


def test_a_download_is_allowed_by_a_truth_alone() -> None:
    assert NodeConfig.from_flower({"allow-download": True}).allow_download
    with pytest.raises(
        UserError, match=r"^allow-download in --node-config must be true or false, got 'true'$"
    ):
        NodeConfig.from_flower({"allow-download": "true"})


NO_NAMES = ["/elsewhere", "../elsewhere", "run/../../elsewhere", "run/more", "", ".", "..", ".run", "run."]
NO_NAMES += [r"..\elsewhere", r"C:\elsewhere", "C:elsewhere", "a b", "é", "a\0", "a\n", "x" * 129]


@pytest.mark.parametrize("named", NO_NAMES)
@pytest.mark.parametrize("state_path", [None, Path("/state")])
def test_a_server_gives_a_name_and_no_path(named: str, state_path: Path | None) -> None:
    with pytest.raises(UserError, match="must give the folder of what clients remember"):
        NodeConfig(state_path=state_path).states_of(named)


def test_where_states_lie(tmp_path: Path) -> None:
    assert NodeConfig(state_path=Path("/state")).states_of("Run.2-0a_") == Path("/state/Run.2-0a_")
    assert NodeConfig().states_of("x" * 128) == Path.home() / ".polyfed" / "state" / ("x" * 128)
    # Of a simulated run, on the same disk.
    assert NodeConfig(simulated=True).states_of("/runs/1/clients") == Path("/runs/1/clients")
    with pytest.raises(UserError):
        NodeConfig(simulated=True, state_path=tmp_path).states_of("/runs/1/clients")


def test_a_link_leads_out_and_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="that may be no link"):
        NodeConfig(state_path=tmp_path / "state").states_of("run")


@pytest.mark.parametrize(
    ("given", "clients"),
    [(3, (3,)), ("3", (3,)), ("0, 3-5", (0, 3, 4, 5)), (" 7 - 8 ,1", (1, 7, 8)), ("9999-9999", (9999,))],
)
def test_clients_that_have_a_folder_each(given: object, clients: tuple[int, ...]) -> None:
    node = NodeConfig.from_flower({"clients": given, "data-path": "/data"})
    assert node.clients == clients
    assert node.folders == tuple((client, f"/data/client-{client}") for client in clients)
    node.check_hosted(clients)
    with pytest.raises(UserError, match=r"^client 2 does not live on this node, whose clients are others$"):
        node.check_hosted([clients[0], 2])


@pytest.mark.parametrize(
    "given",
    ["", "a", "1,", "-1", "1-", "5-3", "1,1", "0-5,3", "0-10000", "1;2", "²", "1" * 17, True, 2.0, -1],
)
def test_what_are_no_numbers_of_clients(given: object) -> None:
    with pytest.raises(UserError, match=r"^clients in --node-config must be at most 10000 different numbers"):
        NodeConfig.from_flower({"clients": given, "data-path": "/data"})


def test_clients_with_a_folder_each_take_a_folder_of_folders() -> None:
    with pytest.raises(UserError, match=r"takes data-path, the folder with client-0, \.\.\. in it$"):
        NodeConfig.from_flower({"clients": "0, 1"})
