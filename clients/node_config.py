"""What a node was started with: `flower-supernode --node-config "..."`, or by a simulation."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clients.client_numbers import KEY as CLIENTS
from clients.client_numbers import read_clients
from clients.simulated import is_simulated
from models.core.errors import UserError, shown

T = TypeVar("T")
PARTITION_ID, NUM_PARTITIONS = "partition-id", "num-partitions"
DATA_PATH, DATA_DIR, STATE_PATH = "data-path", "data-dir", "state-path"
KEEP_STATE_DAYS = "keep-state-days"
ALLOW_CODE, ALLOW_DOWNLOAD, BACKBONE = "allow-code", "allow-download", "backbone"
RESIDENT, RESIDENT_IDLE = "resident", "resident-idle"
SECURE_NODES = "secure-nodes"
CLIENT_FOLDER = "client-{}"
"""Name of a client's folder, where a node has one for each."""
OWNERS = frozenset(
    {
        PARTITION_ID, NUM_PARTITIONS, DATA_PATH, DATA_DIR, STATE_PATH, KEEP_STATE_DAYS, ALLOW_CODE,
        ALLOW_DOWNLOAD, BACKBONE, RESIDENT, RESIDENT_IDLE, CLIENTS,
        SECURE_NODES,
    }
)  # fmt: skip
"""What a node's owner can say; all other keys are for simulations."""
IDLE = 900
"""Seconds without a message after which a resident worker ends, unless the node says how many."""
STATE_ROOT = Path(".polyfed", "state")
"""Where clients keep their state, below the home folder, unless the node says where."""
RUN_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}(?<!\.)")
"""What the folder of a run's states may be called: no path on any system."""


@dataclass(frozen=True)
class NodeConfig:
    """What this node is to host, where its data and its clients' state lie, and what its owner allows."""

    partition_id: int | None = None
    """Number of the node; None where it was not given."""
    num_partitions: int | None = None
    """How many nodes there are; None where it was not given."""
    data_path: str = ""
    """Folder of the node's own data; "" for its share of the simulated deal."""
    state_path: Path | None = None
    """Folder that its clients' state lies under; None is STATE_ROOT below the home folder."""
    keep_state_days: int | None = None
    """Days after which the state of a run that no longer goes on is removed; None is that it stays."""
    data_dir: str = ""
    """Folder of the raw files of datasets that all nodes have alike, and of which it hosts a share."""
    allow_code: tuple[str, ...] = ()
    """Modules and packages whose classes a server may name as "module:Class"."""
    allow_download: bool = False
    """Whether a server may have it fetch the files of a dataset that it lacks."""
    backbone: str = ""
    """Folder or hub name of the pre-trained network that it takes where a server names one."""
    simulated: bool = False
    """Whether it is part of a simulation, on the machines of whoever runs the server."""
    resident: bool = False
    """Whether a process of the node's own stays, with torch and the data, from message to message."""
    resident_idle: int = IDLE
    """Seconds without a message after which that process ends."""
    clients: tuple[int, ...] = ()
    """Clients whose data lie in a folder each, below data-path; () for one client, or shares of a deal."""
    secure_nodes: int | None = None
    """Nodes that a sum must be of, at least, in which its clients' updates leave it; None is that they may
    leave it without secure aggregation."""

    @staticmethod
    def from_flower(given: Mapping[str, object]) -> "NodeConfig":
        """Read Flower's node config; raise UserError for a value of another type."""
        state_path = _typed(given, STATE_PATH, str, "text")
        clients = read_clients(given.get(CLIENTS))
        if clients and not given.get(DATA_PATH):
            raise UserError(
                f"{CLIENTS} in --node-config takes {DATA_PATH}, the folder with "
                f"{CLIENT_FOLDER.format(clients[0])}{', ...' * (len(clients) > 1)} in it"
            )
        return NodeConfig(
            partition_id=_typed(given, PARTITION_ID, int, "a whole number"),
            num_partitions=_typed(given, NUM_PARTITIONS, int, "a whole number"),
            data_path=_typed(given, DATA_PATH, str, "text") or "",
            state_path=Path(state_path) if state_path else None,
            data_dir=_typed(given, DATA_DIR, str, "text") or "",
            allow_code=_modules(_typed(given, ALLOW_CODE, str, "text") or ""),
            allow_download=_truth(given, ALLOW_DOWNLOAD),
            backbone=_typed(given, BACKBONE, str, "text") or "",
            simulated=is_simulated(given),
            keep_state_days=_positive(
                KEEP_STATE_DAYS, _typed(given, KEEP_STATE_DAYS, int, "a whole number of days")
            ),
            resident=_truth(given, RESIDENT),
            resident_idle=_positive(
                RESIDENT_IDLE, _typed(given, RESIDENT_IDLE, int, "a whole number of seconds")
            )
            or IDLE,
            clients=clients,
            secure_nodes=_positive(SECURE_NODES, _typed(given, SECURE_NODES, int, "a whole number")),
        )

    @property
    def place(self) -> tuple[int, int]:
        """The number of the node, and how many there are; UserError where one of them was not given."""
        if self.partition_id is None or self.num_partitions is None:
            raise UserError(
                f'start this SuperNode with --node-config "{PARTITION_ID}=0 {NUM_PARTITIONS}=3" (its own '
                "numbers)"
            )
        return self.partition_id, self.num_partitions

    @property
    def folders(self) -> tuple[tuple[int, str], ...]:
        """The clients that have a folder each, and the folders."""
        return tuple(
            (client, str(Path(self.data_path, CLIENT_FOLDER.format(client)))) for client in self.clients
        )

    @property
    def state_root(self) -> Path:
        """The folder that its clients' state lies under, unless it is simulated and the run has its own."""
        return Path.home() / STATE_ROOT if self.state_path is None else self.state_path

    def states_of(self, named: str) -> Path:
        """Return the folder of a run's states, of which the server says the name.

        Where nodes are simulated it is absolute, in the run's own folder. Raises UserError for what is no
        name on a real node, or a link there.
        """
        if self.simulated and self.state_path is None and Path(named).is_absolute():
            return Path(named)
        folder = self.state_root / named
        if not RUN_NAME.fullmatch(named) or folder.is_symlink():
            raise UserError(
                f"the server must give the folder of what clients remember below {self.state_root} a name of "
                f"letters, digits, '-', '_' and '.', and that may be no link, got {shown(named)}"
            )
        return folder

    def check_hosted(self, clients: Iterable[int]) -> None:
        """Raise UserError for a client that lives on another node; simulated nodes host every client.

        But for clients whose data is theirs alone.
        """
        if self.clients:
            for client in clients:
                if client not in self.clients:
                    raise UserError(f"client {client} does not live on this node, whose {CLIENTS} are others")
            return
        if self.simulated:
            return
        number, of = self.place
        for client in clients:
            if client % of != number:
                raise UserError(
                    f"client {client} does not live on this node, which is {number} of {of}: it hosts those "
                    f"whose number leaves {number} when divided by {of}"
                )


def place_of(given: Mapping[str, object]) -> tuple[int, int] | None:
    """Return the number of a node, and how many there are, if it was started with such; raise nothing."""
    match given.get(PARTITION_ID), given.get(NUM_PARTITIONS):
        case int(number), int(of) if 0 <= number < of:
            return number, of
    return None


def _positive(key: str, given: int | None) -> int | None:
    if given is not None and given < 1:
        raise UserError(f"{key} in --node-config must be at least 1, got {given}")
    return given


def _modules(given: str) -> tuple[str, ...]:
    modules = tuple(each.strip() for each in given.split(",") if each.strip())
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise UserError(
                f'{ALLOW_CODE} in --node-config must be names of modules, as in "mypackage,other.module", '
                f"got {module!r}"
            )
    return modules


def _truth(given: Mapping[str, object], key: str) -> bool:
    value = given.get(key, False)
    if isinstance(value, bool):
        return value
    raise UserError(f"{key} in --node-config must be true or false, got {value!r}")


def _typed(given: Mapping[str, object], key: str, kind: type[T], called: str) -> T | None:
    value = given.get(key)
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    raise UserError(f"{key} in --node-config must be {called}, got {value!r}")
