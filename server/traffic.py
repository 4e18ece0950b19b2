"""What an exchange with clients moves, in bytes and seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Message

from strategies.wire.records import num_value_bytes, records_of
from strategies.wire.reply import ClientFailure


@dataclass
class Traffic:
    """What an exchange moves, as it goes on."""

    down: int = 0
    up: int = 0
    client_down: int = 0
    client_up: int = 0
    node_seconds: float = 0.0
    failures: list[ClientFailure] = field(default_factory=list)
    """Of a strategy's own questions."""


def received_by_clients(messages: Sequence[Message], *beside: ArrayRecord | None) -> int:
    """Return the bytes that clients would receive in messages of their own, each with what goes beside."""
    sizes: dict[int, int] = {}  # of records that clients share, once
    total = sum(num_value_bytes(record) for record in beside if record is not None) * len(messages)
    for message in messages:
        for record in records_of(message.content, ArrayRecord):
            if id(record) not in sizes:
                sizes[id(record)] = num_value_bytes(record)
            total += sizes[id(record)]
    return total
