"""The labels that all nodes have agreed on, as the server says them with what it asks."""

from collections.abc import Sequence

from flwr.app import ConfigRecord, RecordDict

LABELS = "labels"
"""Key of the record, and in it of the names in the order of their numbers."""
MOST, LONGEST = 10_000, 200
"""Labels that a message may name, and characters of a name."""


def pack_labels(names: Sequence[str]) -> dict[str, ConfigRecord]:
    """Return the record that says these labels, by its key; none for no labels, where each node knows its own."""
    return {LABELS: ConfigRecord({LABELS: [*names]})} if names else {}


def labels_in(content: RecordDict) -> tuple[str, ...]:
    """Return the labels that a message says, () where it says none; ValueError for what says none rightly."""
    if LABELS not in content:
        return ()
    record = content[LABELS]
    names = record.get(LABELS) if isinstance(record, ConfigRecord) and len(record) == 1 else None
    if not isinstance(names, list) or not 0 < len(names) <= MOST:
        raise ValueError(f"a message's labels must be a list of 1 to {MOST} names, got {str(record)[:200]}")
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST:
            raise ValueError(
                f"a message's labels must be texts of 1 to {LONGEST} characters, got {ascii(name)[:80]}"
            )
    return tuple(names)
