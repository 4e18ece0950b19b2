"""Tables of rows, in whatever file they lie: read part by part, so that a file need not fit the memory."""

import codecs
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from models.core.config import require
from models.core.errors import UserError

PART = 1000
"""Rows that are read at a time: few enough to stay in a CPU's cache."""
_EXAMPLES = {
    "time": "time = 'date'",
    "value": "value = 'price'",
    "client": "client = 'shop', or '' where it has none",
    "text": "text = 'letter'",
    "label": "label = 'topic'",
    "file": "file = 'path'",
    "image": "image = 'picture'",
    "tokens": "words = 'sentence'",
    "ner_tags": "tags = 'entities'",
}
"""Name of a column where nobody gives another -> the option that does, with an example."""
_LONGEST_CELL = 60
"""Characters of a value that an error shows."""


@dataclass(frozen=True)
class Part:
    """Some rows of a table, in the order of the file."""

    place: Sequence[int]
    """Where each row stands: its line or its number, from 1 on."""
    cells: Mapping[str, Sequence[Any]]
    """Column -> a value for each row; None where there is none."""


class Table(ABC):
    """A table that can be read again and again."""

    name: str
    """What errors call it, such as its path."""
    counts: str = "line"
    """What the place of a row is."""

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """Return the names of all columns."""

    @abstractmethod
    def parts(self, columns: Sequence[str]) -> Iterator[Part]:
        """Yield these columns of all rows, at most PART rows at a time.

        Raises UserError for what is no row of such a table.
        """

    def classes(self, column: str) -> tuple[str, ...]:
        """Return what the table itself says that the numbers of a column stand for; () where it does not."""
        return ()

    def check_columns(self, needed: Sequence[str]) -> None:
        """Raise UserError for a column that the table lacks or has twice."""
        if not self.columns:
            raise UserError(f"{self.name} is empty: give rows with the columns {', '.join(needed)}")
        if missing := [column for column in needed if column not in self.columns]:
            raise UserError(
                f"{self.name} needs the columns {', '.join(needed)}, and lacks {', '.join(missing)}: it has "
                f"{','.join(self.columns)[:100]!r}; {self.advice or self.advice_on(missing)}"
            )
        if twice := [column for column in needed if self.columns.count(column) > 1]:
            raise UserError(f"{self.name} has the column {twice[0]} twice: rename one of them")

    @property
    def advice(self) -> str:
        """What to do where a column is not found; "" = what `advice_on` says of those that are missing."""
        return ""

    def advice_on(self, missing: Sequence[str]) -> str:
        """Return what to do where these columns are not found: name others, by an option that is theirs."""
        example = next((_EXAMPLES[column] for column in reversed(missing) if column in _EXAMPLES), "")
        return f"name its own in dataset-options, such as {example}" if example else "name one that it has"

    def filled(self, columns: Sequence[str]) -> Iterator[Part]:
        """Yield what `parts` does; UserError for the first value that is not filled in."""
        for part in self.parts(columns):
            self.check_filled(part, columns)
            yield part

    def check_filled(self, part: Part, columns: Sequence[str]) -> None:
        """Raise UserError for the first value of a part that is not filled in."""
        for column in columns:
            cells = part.cells[column]
            if (empty := _first_empty(cells)) >= 0:
                raise self.refuse(part.place[empty], column, "filled in, or the row left out", cells[empty])

    def refuse(self, place: int, column: str, allowed: str, given: object) -> UserError:
        """Return the error for the value of a column in a row."""
        shown = repr(given[:_LONGEST_CELL] if isinstance(given, str) else given)[:200]
        return UserError(f"{self.name}, {self.counts} {place}: {column} must be {allowed}, got {shown}")

    def at(self, row: int, column: str) -> tuple[int, Any]:
        """Return the place of a row, counted from 0, and what it holds in a column: for an error."""
        for part in self.parts([column]):
            if row < len(part.place):
                return part.place[row], part.cells[column][row]
            row -= len(part.place)
        raise IndexError(row)


def _first_empty(cells: Sequence[Any]) -> int:
    """Return the first value that is not filled in; -1 where all are."""
    with suppress(TypeError):  # of what is no text
        if all(map(str.strip, cells)):
            return -1
    return next((row for row, cell in enumerate(cells) if is_empty(cell)), -1)


def is_empty(cell: Any) -> bool:
    """Return whether a value is not filled in: nothing, blanks, or the NaN that pandas writes for nothing."""
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def in_parts(rows: Iterator[tuple[int, Sequence[Any]]], columns: Sequence[str]) -> Iterator[Part]:
    """Yield rows of (place, a value for each column, and whatever more) as parts."""
    while chosen := list(islice(rows, PART)):
        places, cells = zip(*chosen, strict=True)
        yield Part(places, dict(zip(columns, zip(*cells, strict=True), strict=False)))


def check_encoding(encoding: str) -> str:
    """Return the name of an encoding of text, for opening a file; UserError where Python knows none such."""
    try:
        known = codecs.lookup(encoding)
        fits = bool(getattr(known, "_is_text_encoding", True))
    except (LookupError, ValueError):  # the latter of a zero byte
        fits = False
    require(fits, "encoding", "one that Python knows, such as 'utf-8', 'latin-1' or 'cp1252'", encoding)
    return "utf-8-sig" if known.name == "utf-8" else encoding


def other_encoding(name: str, encoding: str, error: UnicodeError) -> UserError:
    """Return the error for a file whose bytes are no text in an encoding."""
    called = "UTF-8" if encoding in ("utf-8", "utf-8-sig") else encoding
    return UserError(
        f"{name} is not in {called} ({error}): save it as UTF-8, or name its encoding in dataset-options, "
        "such as encoding = 'latin-1'"
    )
