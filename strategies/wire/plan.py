"""What a message says of its own records as JSON, read by type: whatever else it is, is refused."""

from typing import Annotated, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from strategies.wire.saved_state import SavedState

Record = TypeVar("Record", ArrayRecord, MetricRecord, ConfigRecord)
Read = TypeVar("Read")
Kind = type[ArrayRecord] | type[ConfigRecord]
Client = Annotated[int, Field(ge=0, lt=2**63)]

GROUPS = "groups"
LONGEST = 2**26
"""Characters of JSON: that of a million clients has an eighth of it."""


class Layout(BaseModel):
    """Clients that are asked by the same records."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    records: dict[str, str]
    """What a client calls a record -> its key in the message."""
    clients: list[Client]


_LAYOUTS = TypeAdapter(list[Layout])
_STATES = TypeAdapter(list[tuple[Client, Client, str]], config=ConfigDict(strict=True))


def record_at(content: RecordDict, key: str, kind: type[Record]) -> Record:
    """Return a record of a message; ValueError where there is none, or one of another kind."""
    record = content.get(key)
    if isinstance(record, kind):
        return record
    raise ValueError(f"a message must hold a {kind.__name__} {key!r}, got {type(record).__name__}")


def read_groups(record: ConfigRecord) -> list[Layout]:
    """Return which clients are asked by which records; each client once."""
    layouts = _read(_LAYOUTS, record, GROUPS, "plan")
    clients = [client for layout in layouts for client in layout.clients]
    if len(set(clients)) < len(clients):
        raise ValueError("a message's plan must name each client once")
    return layouts


def read_states(record: ConfigRecord, key: str) -> dict[int, SavedState]:
    """Return what `pack_states` packed."""
    states = _read(_STATES, record, key, "states")
    return {client: SavedState(server_round, sha256) for client, server_round, sha256 in states}


def _read(adapter: TypeAdapter[Read], record: ConfigRecord, key: str, what: str) -> Read:
    text = record.get(key)
    if not isinstance(text, str) or len(text) > LONGEST or len(record) != 1:
        raise ValueError(f"a message's {what} must be one text of at most {LONGEST} characters under {key!r}")
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"a message's {what} cannot be read: {where or 'it'}: {first['msg']}"[:300]
        ) from None
