"""What a node was started with: `flower-supernode --node-config "..."`, or by a simulation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from models.core.errors import UserError

T = TypeVar("T")
PARTITION_ID, NUM_PARTITIONS = "partition-id", "num-partitions"
DATA_PATH, STATE_PATH = "data-path", "state-path"
KEEP_STATE_DAYS = "keep-state-days"
STATE_ROOT = Path(".polyfed", "state")
"""Where clients keep their state, below the home folder, unless the node says where."""


@dataclass(frozen=True)
class NodeConfig:
    """What this node is to host, and where its data and its clients' state lie."""

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

    @staticmethod
    def from_flower(given: Mapping[str, object]) -> "NodeConfig":
        """Read Flower's node config; raise UserError for a value of another type."""
        state_path = _typed(given, STATE_PATH, str, "text")
        return NodeConfig(
            partition_id=_typed(given, PARTITION_ID, int, "a whole number"),
            num_partitions=_typed(given, NUM_PARTITIONS, int, "a whole number"),
            data_path=_typed(given, DATA_PATH, str, "text") or "",
            state_path=Path(state_path) if state_path else None,
            keep_state_days=_days(_typed(given, KEEP_STATE_DAYS, int, "a whole number of days")),
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
    def state_root(self) -> Path:
        """The folder that its clients' state lies under, unless the server names an absolute one."""
        return Path.home() / STATE_ROOT if self.state_path is None else self.state_path

    def states_of(self, named: str) -> Path:
        """Return the folder of a run's states, of which the server says the name.

        Where server and nodes share a disk it is absolute, in the run's own folder. Raises UserError for one
        that leads out of the folder that this node was given, or out of the usual one by dots.
        """
        path = Path(named)
        below = not path.is_absolute() and path.parts and ".." not in path.parts
        if not below and not (path.is_absolute() and self.state_path is None):
            raise UserError(
                f"the server names {named!r} for what clients remember, which is not below {self.state_root} "
                f"({STATE_PATH} in --node-config)"
            )
        return self.state_root / path


def _days(given: int | None) -> int | None:
    if given is not None and given < 1:
        raise UserError(f"{KEEP_STATE_DAYS} in --node-config must be at least 1, got {given}")
    return given


def _typed(given: Mapping[str, object], key: str, kind: type[T], called: str) -> T | None:
    value = given.get(key)
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    raise UserError(f"{key} in --node-config must be {called}, got {value!r}")
