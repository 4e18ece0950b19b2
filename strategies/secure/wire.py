"""How secure aggregation travels: what the server asks of a node at each stage, and what the node tells.

One record of plain values, read by type: either side may be sent anything.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from strategies.secure import shares
from strategies.secure.keys import KEY
from strategies.secure.member import LONGEST_ID, Dealt, Member, Told
from strategies.wire.plan import record_at

SECURE = "secure"
"""Key of the record, of either way; a request for training has it beside its own."""
STAGE, SESSION, ERROR = "stage", "session", "error"
BEGIN, DEAL, MASK, OPEN = "begin", "deal", "mask", "open"
"""What a node is asked."""
LONGEST_SEALED = 1_000
MOST_NODES = 1_000
"""Nodes of a session: each deals a share to each other one, and its work grows with their number."""

Places = Mapping[int, bytes]


def asked(stage: str, session: bytes, **values: Any) -> ConfigRecord:
    """Return what a node is asked; a table of places travels as two lists."""
    return ConfigRecord({STAGE: stage, SESSION: session, **_flat(values)})


def told(**values: Any) -> RecordDict:
    """Return what a node tells."""
    return RecordDict({SECURE: ConfigRecord(_flat(values))})


def record_of(content: RecordDict) -> ConfigRecord:
    """Return the record of a message; raise ValueError with a node's own words where it tells an error."""
    record = record_at(content, SECURE, ConfigRecord)
    if ERROR in record:
        raise ValueError(str(record[ERROR])[:1_000])
    return record


def whole(record: ConfigRecord, key: str, least: int = 0, most: int = MOST_NODES) -> int:
    """Return a number of a record."""
    value = record.get(key)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"its {key} must be {least} to {most}, got {value!r:.40}")
    return value


def text(record: ConfigRecord, key: str, size: int | None = None, most: int = LONGEST_ID) -> bytes:
    """Return bytes of a record, of this size or of at most so many."""
    value = record.get(key)
    if not isinstance(value, bytes) or not (len(value) <= most if size is None else len(value) == size):
        wanted = f"at most {most}" if size is None else f"{size}"
        raise ValueError(f"its {key} must be {wanted} bytes, got {type(value).__name__}")
    return value


def numbers(record: ConfigRecord, key: str, most: int = MOST_NODES) -> list[int]:
    """Return a list of at most so many whole numbers, each once."""
    value = record.get(key)
    if not (isinstance(value, list) and all(type(each) is int and 0 <= each < 2**53 for each in value)):
        raise ValueError(f"its {key} must be a list of whole numbers, got {value!r:.80}")
    if len(set(value)) < len(value) or len(value) > most:
        raise ValueError(f"its {key} must be at most {most} numbers, each once, got {value!r:.80}")
    return list(value)  # type: ignore[arg-type]  # which was checked


def places(record: ConfigRecord, key: str, size: int | None = None) -> dict[int, bytes]:
    """Return place -> bytes."""
    found, values = numbers(record, f"{key}-places"), record.get(key)
    most = LONGEST_SEALED
    if not (
        isinstance(values, list)
        and len(values) == len(found)
        and all(isinstance(each, bytes) and len(each) <= most for each in values)
        and (size is None or all(len(each) == size for each in values))  # type: ignore[arg-type]
    ):
        raise ValueError(f"its {key} must be bytes for each of {len(found)} places")
    return dict(zip(found, values, strict=True))  # type: ignore[arg-type]


def dealt_of(record: ConfigRecord) -> Dealt:
    """Return what a node has dealt."""
    key_tags, seed_tags = (places(record, key, KEY) for key in ("key_tags", "seed_tags"))
    return Dealt(places(record, "sealed"), key_tags, seed_tags, text(record, "commitment", KEY))


def told_of(record: ConfigRecord) -> Told:
    """Return the shares that a node tells."""
    return Told(places(record, "seeds", shares.SHARE), places(record, "keys", shares.SHARE))


def to_memory(member: Member) -> ConfigRecord:
    """Return what a node keeps of a session until the next message."""
    return ConfigRecord(_flat(vars(member)))


def from_memory(record: ConfigRecord) -> Member:
    """Return what `to_memory` gave."""
    stage = record.get("stage")
    if stage not in ("begun", "dealt", "masked"):
        raise ValueError(f"a session is kept as begun, dealt or masked, got {stage!r:.40}")
    return Member(
        text(record, "session"),
        tuple(numbers(record, "numbers")),
        whole(record, "place", 1),
        whole(record, "threshold", 1),
        stage,  # type: ignore[arg-type]  # which was checked
        text(record, "mask_secret"),
        text(record, "seal_secret"),
        text(record, "seed"),
        places(record, "mask_keys"),
        places(record, "seal_keys"),
        places(record, "key_shares"),
        places(record, "seed_shares"),
    )


def flat(value: Dealt | Told) -> dict[str, Any]:
    """Return the fields, to be told."""
    return asdict(value)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that a ConfigRecord can hold: a table becomes two lists."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{key}-places": list(value), key: list(value.values())}
        else:
            found[key] = list(value) if isinstance(value, tuple) else value
    return found
