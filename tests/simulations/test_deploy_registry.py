"""Which keys a SuperLink is told, and which clients they may host."""

from pathlib import Path

import pytest

from models.core.errors import UserError
from simulations.deploy import asked, authority, given_clients, keys, registry
from simulations.deploy.folder import Folder


def silent(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the public keys of two nodes; a SuperLink knows those that were registered with it."""
    public = []
    for name in ("a", "b"):
        authority.make_node_key(tmp_path / name, name, silent)
        public.append(tmp_path / name / "node.pub")
    there: list[asked.Node] = []

    def answer(command: registry.Program, _: object) -> dict[str, str]:
        verb, given = command.arguments[2:4]
        if verb == "register":
            key = keys.read_public_line(Path(given))[0]
            assert key not in [node.key for node in there], "Flower refuses a key that it knows"
            there.append(asked.Node(len(there), command.arguments[-1], "registered", "", key))
        else:
            there[:] = [node for node in there if node.number != int(given)]
        return {"node-id": str(len(there) - 1)}

    monkeypatch.setattr(registry, "_answer", answer)
    monkeypatch.setattr(asked, "registered", lambda _: list(there))
    return public


def test_clients_are_written_by_key_and_go_with_it(tmp_path: Path, nodes: list[Path]) -> None:
    folder, said = Folder.made(tmp_path / "server"), []
    a, b = (keys.read_public_line(path)[0] for path in nodes)

    def given() -> dict[str, str]:
        return given_clients.given(folder)

    assert registry.register(folder, nodes[0], "", "", said.append) == 0
    assert not folder.node_clients.exists()
    assert registry.register(folder, nodes[0], "", "0-3", said.append) == 0  # the same node once more
    assert registry.register(folder, nodes[1], "", "4,6", said.append) == 1
    assert given() == {a: "0-3", b: "4,6"}
    assert said[1:3] == [
        f"node 0 is registered with the key {a} already",
        "node 0 may host clients 0-3 alone, and no other node may host them",
    ]
    registry.register(folder, nodes[0], "", "0", silent)
    registry.unregister(folder, 1, silent)
    assert given() == {a: "0"}


def test_numbers_that_cannot_be_register_nothing(tmp_path: Path, nodes: list[Path]) -> None:
    folder = Folder.made(tmp_path / "server")
    with pytest.raises(UserError, match="--clients must be numbers as in 0-3,7, got '3-0'"):
        registry.register(folder, nodes[0], "", "3-0", silent)
    assert asked.registered(folder) == []


def test_a_server_has_a_list_from_the_start(tmp_path: Path) -> None:
    """Or a run would not know whether it was lost."""
    folder, said = Folder.made(tmp_path / "server"), []
    given_clients.make(folder, said.append)
    assert (folder.node_clients.is_file(), given_clients.given(folder), said) == (True, {}, [])
    given_clients.write(folder, {"SHA256:a": "0-3"})
    given_clients.make(folder, said.append)
    assert (given_clients.given(folder), said) == ({"SHA256:a": "0-3"}, [])
    folder.node_clients.unlink()
    folder.database.touch()
    given_clients.make(folder, said.append)
    assert [line.partition(" is not there")[0] for line in said] == [str(folder.node_clients)]
    assert [each.name for each in folder.path.glob(".node-clients*")] == []
