"""Names of labels: which a dataset has, and the union of those that several machines have."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models.data.dataset import Dataset
from models.data.held_out import in_order, label_name
from models.data.tag_schemes import OUTSIDE

MOST, LONGEST = 1_000, 200
"""Labels on which machines may agree, and characters of one."""


@dataclass(frozen=True)
class Labels:
    """How labels get their numbers, in a dataset of which each machine may have some labels alone."""

    option: str
    """Option of its loader that names all labels, in the order of their numbers."""
    numbered: bool = False
    """Whether a label is called by its number, as in a file of arrays, where all up to the largest are."""

    numbers_first: bool = False
    """Whether whole numbers among the names come first, by size."""

    def check(self, names: Sequence[object]) -> None:
        """Raise ValueError for names that no labels may have: other machines say anything."""
        if len(names) > MOST:
            raise ValueError(f"labels must be at most {MOST} together, got {len(names)}")
        for name in names:
            if not isinstance(name, str) or not _is_name(name):
                raise ValueError(
                    f"a label must be 1 to {LONGEST} printable characters, without blanks at its ends, got "
                    f"{ascii(name)[:80]}"
                )
            if self.numbered and not (name.isascii() and name.isdecimal() and name == str(int(name[:9]))):
                raise ValueError(f"a label must be a whole number from 0 on, got {ascii(name)[:80]}")
            if self.numbered and int(name) >= MOST:
                raise ValueError(f"a label must be a whole number below {MOST}, got {name}")
        if len(set(names)) < len(names):
            raise ValueError("labels must have different names")

    def fit(self, names: Sequence[str]) -> bool:
        """Return whether these are names that may be told to other machines."""
        try:
            self.check(names)
        except ValueError:
            return False
        return True

    def union(self, told: Iterable[Sequence[str]]) -> tuple[str, ...]:
        """Return all labels of several machines, in an order that follows from their names alone.

        It is the order that a loader gives them which finds all of them in one place. Raises ValueError for
        names that no labels may have, and for too many.
        """
        together: set[str] = set()
        for names in told:
            self.check(names)
            together.update(map(label_name, names))
        if self.numbered:
            return tuple(map(str, range(max(map(int, together), default=-1) + 1)))
        self.check([*together])
        return tuple(sorted(together, key=in_order) if self.numbers_first else sorted(together))


def labels_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of a dataset's labels in the order of their numbers: classes, or types of entities."""
    if dataset.kind == "tagged-sentences":
        tags: Sequence[str] = dataset.info["tags"]
        return tuple(dict.fromkeys(tag[2:] for tag in tags if tag != OUTSIDE))
    return tuple(dataset.classes)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST and text.isprintable() and text == text.strip()
