"""What a node says of itself when the server asks, and how that travels."""

from collections.abc import Mapping

from flwr.app import ConfigRecord, RecordDict
from pydantic import BaseModel, ConfigDict, ValidationError

NODE = "node"
"""Key of the record in which a node describes itself."""
DESCRIPTION, ERROR, TRACEBACK = "description", "error", "traceback"
DEBUG = "debug"
"""Key of a node config under which a run in one process asks for the first exception itself."""


def debugged(node_config: Mapping[str, object]) -> bool:
    """Return whether the first exception is to reach a debugger, and is not reported."""
    return bool(node_config.get(DEBUG))


class NodeError(Exception):
    """Why a node cannot take part, in one line; `whole` says more, such as its traceback."""

    def __init__(self, line: str, whole: str) -> None:
        super().__init__(line)
        self.whole = whole

    def pack(self) -> RecordDict:
        """Return the message to the server."""
        return RecordDict({NODE: ConfigRecord({ERROR: str(self), TRACEBACK: self.whole})})


class NodeDescription(BaseModel):
    """Which clients live on a node, and what task and data they have."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    partition_id: int
    """Number of the node, from 0 on."""
    num_partitions: int
    """How many nodes there are."""
    own_data: bool
    """Whether the node has data of its own, which the server does not see."""
    data: str
    """Hash of its data."""
    state: tuple[str, ...]
    """Entries of its model, and whatever else all nodes must have alike."""
    machine: str = ""
    """What it computes with: versions, processor and device, in one line."""

    def pack(self) -> RecordDict:
        """Return the message to the server."""
        return RecordDict({NODE: ConfigRecord({DESCRIPTION: self.model_dump_json()})})

    @staticmethod
    def unpack(content: RecordDict) -> "NodeDescription":
        """Return what `pack` packed; raise NodeError for a node that cannot take part."""
        said = content.config_records[NODE]
        if ERROR in said:
            raise NodeError(str(said[ERROR]), str(said[TRACEBACK]))
        try:
            return NodeDescription.model_validate_json(str(said[DESCRIPTION]))
        except (KeyError, ValidationError) as error:
            why = "it describes itself in another way: do server and nodes have the same polyfed?"
            raise NodeError(why, f"{dict(said)}\n{error}") from error
