"""What numbers in the examples stand for, as the server says it to nodes that have data of their own."""

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

VOCABULARY = "vocabulary"
"""Key of the record."""
MOST: Mapping[str, int] = {"labels": 1_000, "tokens": 100_000, "merges": 200_000}
"""Names that a message may hold of each kind."""
LONGEST = 200
"""Characters of a name."""


@dataclass(frozen=True)
class Vocabulary:
    """The names of labels and tokens, in the order of their numbers; () where each node knows its own."""

    labels: tuple[str, ...] = ()
    """Classes, or types of entities."""
    tokens: tuple[str, ...] = ()
    """What words are cut into, where that was learned from the server's data."""
    merges: tuple[str, ...] = ()
    """How: the two parts of the first token that is put together, those of the second, and so on."""

    def check(self) -> None:
        """Raise ValueError for names that no node would take."""
        Vocabulary.unpack(RecordDict({**self.pack()}))

    def pack(self) -> dict[str, ConfigRecord]:
        """Return the record that travels, by its key; none where there is nothing to say."""
        said = {name: [*getattr(self, name)] for name in MOST if getattr(self, name)}
        return {VOCABULARY: ConfigRecord({**said})} if said else {}

    @staticmethod
    def unpack(content: RecordDict) -> "Vocabulary":
        """Return what a message says; ValueError for what is no record of `pack`."""
        if VOCABULARY not in content:
            return Vocabulary()
        record = content[VOCABULARY]
        if not isinstance(record, ConfigRecord) or record.keys() - MOST.keys():
            raise ValueError(
                f"a message's vocabulary must be lists of {', '.join(MOST)}, got {ascii(record)[:200]}"
            )
        return Vocabulary(**{name: _names(name, record[name]) for name in record})


def _names(kind: str, names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not 0 < len(names) <= MOST[kind]:
        raise ValueError(
            f"a message's {kind} must be a list of 1 to {MOST[kind]} names, got {ascii(names)[:200]}"
        )
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST:
            raise ValueError(
                f"a message's {kind} must be of 1 to {LONGEST} characters each, got {ascii(name)[:80]}"
            )
    return tuple(names)
