"""The list of which clients nodes' keys may host, in the SuperLink's folder."""

import os
import secrets
from collections.abc import Callable, Mapping

import tomli_w

from server.node_clients import NodeClients
from simulations.deploy.folder import Folder

HEAD = "# Clients that a node's key may host, and no other node. `polyfed deploy register` writes it.\n"


def given(folder: Folder) -> dict[str, str]:
    """Return fingerprint -> clients; {} where nobody has given any. UserError where that cannot be read."""
    return NodeClients(folder.node_clients).read() if folder.node_clients.exists() else {}


def make(folder: Folder, say: Callable[[str], None]) -> None:
    """Make a list that holds nobody, where there is none: without one the SuperLink's runs are refused."""
    if folder.node_clients.exists():
        return
    if folder.database.exists():
        say(f"{folder.node_clients} is not there, so that any node may host any client: it is made, empty")
    write(folder, {})


def write(folder: Folder, clients: Mapping[str, str]) -> None:
    """Write which clients keys may host, as a whole or not at all: a run may read it at any moment."""
    new = folder.node_clients.with_name(f".{folder.node_clients.name}-{secrets.token_hex(4)}")
    with new.open("w", encoding="utf-8") as file:
        file.write(HEAD + tomli_w.dumps(dict(clients)))
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder.node_clients)
