"""What an exchange with clients moves, in bytes and seconds, and what of it leaves the nodes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from server.run_schema import LEAVES
from strategies.secure.masked_reply import MASKED
from strategies.secure.wire import SECURE
from strategies.wire.arrays import num_message_bytes
from strategies.wire.records import PLAN, num_value_bytes, records_of
from strategies.wire.reply import FAILURES, METRICS, STATISTICS_SUM, SUM, ClientFailure

UPDATES, SUMS, STATISTICS, NOISE, TOLD, WHY, LISTS, DESCRIPTIONS = LEAVES
OF_ARRAYS = UPDATES, SUMS, STATISTICS, NOISE
OF_RECORDS = {SUM: SUMS, STATISTICS_SUM: STATISTICS, MASKED: NOISE}
OF_PLAN = {METRICS: TOLD, FAILURES: WHY}


@dataclass
class Traffic:
    """What an exchange moves, as it goes on."""

    down: int = 0
    up: int = 0
    client_down: int = 0
    client_up: int = 0
    node_seconds: float = 0.0
    left: Counter[str] = field(default_factory=Counter)
    """Of LEAVES -> bytes."""
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


def left_in(content: RecordDict) -> Counter[str]:
    """Return what a node's reply holds, of LEAVES -> bytes; of texts, their characters."""
    found: Counter[str] = Counter()
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            found[OF_RECORDS.get(key, UPDATES)] += sum(map(num_message_bytes, record.values()))
        elif key == PLAN:
            for name, value in record.items():
                # Beside a masked vector no client tells metrics of its own.
                kind = LISTS if name == METRICS and MASKED in content else OF_PLAN.get(name, LISTS)
                found[kind] += _size(value)
        elif key == SECURE and isinstance(record, ConfigRecord):
            found[LISTS] += _size_of_record(record)
        else:
            found[TOLD] += _size_of_record(record)
    return found


def _size_of_record(record: ConfigRecord | MetricRecord) -> int:
    return sum(len(name) + _size(value) for name, value in record.items())


def _size(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, list) else 8
