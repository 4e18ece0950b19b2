"""What a node says of itself when the server asks, and how that travels."""

from collections.abc import Mapping
from typing import Annotated

from flwr.app import ConfigRecord, RecordDict
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

NODE = "node"
"""Key of the record in which a node describes itself."""
DESCRIPTION, ERROR, TRACEBACK = "description", "error", "traceback"
PLACE = "place"
"""Key of the numbers that a node was started with, where it cannot take part."""
DEBUG = "debug"
"""Key of a node config under which a run in one process asks for the first exception itself."""

Text = Annotated[str, StringConstraints(max_length=1_000)]
LARGEST = 2**53
"""No number of a node, and no length of an example, is larger: nodes say anything, of any length."""
Entry = Annotated[str, StringConstraints(max_length=20_000)]
"""Of a model, or of what else must be alike."""
Number = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]


def debugged(node_config: Mapping[str, object]) -> bool:
    """Return whether the first exception is to reach a debugger, and is not reported."""
    return bool(node_config.get(DEBUG))


class NodeError(Exception):
    """Why a node cannot take part, in one line; `whole` says more, such as its traceback."""

    def __init__(self, line: str, whole: str, place: tuple[int, int] | None = None) -> None:
        super().__init__(line)
        self.whole = whole
        self.place = place
        """Number of the node and how many there are; None where it does not know."""

    @property
    def size(self) -> int:
        """How many characters it says."""
        return len(str(self)) + len(self.whole)

    def pack(self) -> RecordDict:
        """Return the message to the server."""
        said = ConfigRecord({ERROR: str(self), TRACEBACK: self.whole})
        if self.place is not None:
            said[PLACE] = [*self.place]
        return RecordDict({NODE: said})


class DataDescription(BaseModel):
    """What a node's data is like; it shows no example."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    kind: Text
    """What the examples are, such as "images"."""
    num_examples: Annotated[int, Field(ge=0, le=LARGEST)]
    """Examples to train on."""
    columns: Annotated[
        dict[Text, Annotated[tuple[Number, ...], Field(max_length=64)]], Field(max_length=10_000)
    ]
    """Column -> shape of one example's entry, such as (1, 28, 28); -1 is a length that may differ."""
    classes: Annotated[tuple[Text, ...], Field(max_length=1_000_000)] = ()
    """Names of its labels, such as classes or types of entities, in the order of their numbers."""


class NodeDescription(BaseModel):
    """Which clients live on a node, and what task and data they have."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    partition_id: Number
    """Number of the node, from 0 on."""
    num_partitions: Number
    """How many nodes there are."""
    own_data: bool
    """Whether the node has data of its own, which the server does not see."""
    data: Text
    """Hash of its data."""
    state: Annotated[tuple[Entry, ...], Field(max_length=1_000_000)]
    """Entries of its model, and whatever else all nodes must have alike."""
    machine: Text = ""
    """What it computes with: versions, processor and device, in one line."""
    examples: DataDescription | None = None
    """What its data is like."""
    clients: Annotated[tuple[Number, ...], Field(max_length=10_000)] = ()
    """Its clients, where it has data of its own for each of them; () is that its number says them."""

    @property
    def size(self) -> int:
        """How many characters it says."""
        return len(self.model_dump_json())

    def pack(self) -> RecordDict:
        """Return the message to the server."""
        return RecordDict({NODE: ConfigRecord({DESCRIPTION: self.model_dump_json()})})

    @staticmethod
    def unpack(content: RecordDict) -> "NodeDescription":
        """Return what `pack` packed; raise NodeError for a node that cannot take part."""
        said = content.config_records.get(NODE, ConfigRecord())
        if ERROR in said:
            raise NodeError(str(said[ERROR]), str(said.get(TRACEBACK, said[ERROR])), _place(said))
        try:
            return NodeDescription.model_validate_json(str(said[DESCRIPTION]))
        except (KeyError, ValidationError) as error:
            why = "it describes itself in another way: do server and nodes have the same polyfed?"
            raise NodeError(why, f"{dict(said)}\n{error}") from error


def _place(said: ConfigRecord) -> tuple[int, int] | None:
    match said.get(PLACE):
        case [int(number), int(of)] if 0 <= number < of:
            return number, of
    return None
