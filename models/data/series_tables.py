"""Series from tables; what a table holds that cannot be read is refused by its line."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.core.errors import UserError, shown
from models.data.dataset import Dataset
from models.data.names import client_names
from models.data.series import Cut, Series, windows_of
from models.data.table import Part, Table

# pandas is imported where it is used: it costs every worker a part of a second.

Numbers = NDArray[np.float64]
_YEARS = (1678, 2261)
"""Whole years of which pandas counts the nanoseconds."""


@dataclass(frozen=True)
class SeriesColumns:
    """Which columns hold what, and how it is written."""

    time: str
    value: Sequence[str]
    """One or several; each is a series of its own for every client."""
    client: str
    """"" = all rows are of one client."""
    time_format: str = ""
    """Form of the dates, as for `datetime.strptime`; "" = ISO 8601."""
    decimal: str = "."
    """Sign before the fraction of a number."""

    @property
    def needed(self) -> list[str]:
        """Names of the columns, each once."""
        return list(dict.fromkeys(filter(None, (self.client, self.time, *self.value))))


@dataclass(frozen=True)
class _Rows:
    """All rows of a table in numbers: 28 bytes each, and 8 for every value column beyond the first."""

    client: NDArray[np.int32]
    """Place in `names`."""
    names: Sequence[str]
    time: Numbers
    dates: bool
    value: Sequence[Numbers]


class _NoNumber(NamedTuple):
    """A time that is no number."""

    place: int
    given: Any


def read_series(name: str, table: Table, columns: SeriesColumns, cut: Cut) -> Dataset:
    """Cut the series of a table, whose rows may come unsorted, into examples.

    A client is one series for every value column. Times are numbers or dates. Raises UserError for the first
    row that cannot be read, and for two of one client and time.
    """
    if not columns.value or len({columns.time, columns.client, *columns.value}) < 2 + len(columns.value):
        raise UserError(
            f"time, value and client must name different columns, got {shown(columns.time)}, "
            f"{shown(list(columns.value))} and {shown(columns.client)}"
        )
    table.check_columns(columns.needed)
    rows = _read(table, columns, dates=bool(columns.time_format))
    if isinstance(rows, _NoNumber):
        rows = _read(table, columns, dates=True, first=rows)
    assert isinstance(rows, _Rows)
    order = np.lexsort((rows.time, rows.client))  # of equal times, the first in the file stays first
    _check_times(table, columns, rows, order)
    starts = np.searchsorted(rows.client[order], np.arange(len(rows.names) + 1))
    series = []
    for number in sorted(range(len(rows.names)), key=lambda number: rows.names[number]):
        chosen, client = order[starts[number] : starts[number + 1]], rows.names[number]
        for column, value in zip(columns.value, rows.value, strict=True):
            title = client if len(columns.value) == 1 else f"{client}: {column}" if columns.client else column
            series.append(Series(title, rows.time[chosen], value[chosen], client))
    return windows_of(name, series, unit="", dates=rows.dates, cut=cut)


def _read(
    table: Table, columns: SeriesColumns, dates: bool, first: _NoNumber | None = None
) -> _Rows | _NoNumber:
    """Read a table as numbers; the first time that is none where not all are, and they may be dates.

    `first` is that time of a reading before: it is what is wrong where numbers stand beside it.
    """
    numbers: dict[str, int] = {}
    client: list[NDArray[np.int32]] = []
    time: list[Numbers] = []
    value: list[list[Numbers]] = [[] for _ in columns.value]
    for part in table.filled(columns.needed):
        for column, into in zip(columns.value, value, strict=True):
            found = _finite(table, part, column, columns.decimal)
            into.append(found)
        cells = part.cells[columns.time]
        times = _days(table, part, columns, first) if dates else _numbers(cells, columns.decimal)
        for row in np.flatnonzero(~np.isfinite(times)).tolist():
            return _NoNumber(part.place[row], cells[row])
        time.append(times)
        names = client_names(table, part, columns.client) if columns.client else [""] * len(part.place)
        for each in dict.fromkeys(names):
            numbers.setdefault(each, len(numbers))
        client.append(np.array([*map(numbers.__getitem__, names)], dtype=np.int32))
    if not client:
        raise UserError(f"dataset {table.name!r} holds no series")
    names = list(numbers) if columns.client else [columns.value[0]]
    return _Rows(np.concatenate(client), names, np.concatenate(time), dates, [*map(np.concatenate, value)])


def _finite(table: Table, part: Part, column: str, decimal: str) -> Numbers:
    """Return the values of a column; UserError for one that is no finite number."""
    found = _numbers(part.cells[column], decimal)
    for row in np.flatnonzero(~np.isfinite(found)).tolist():
        allowed = "a finite number"
        if decimal != ".":
            allowed += f" with {decimal!r} before its fraction and nothing between its thousands"
        raise table.refuse(part.place[row], column, allowed, part.cells[column][row])
    return found


def _check_times(table: Table, columns: SeriesColumns, rows: _Rows, order: NDArray[np.int64]) -> None:
    """Raise UserError for the first row in the file that has the client and the time of one before it."""
    client, time = rows.client[order], rows.time[order]
    same = (client[1:] == client[:-1]) & (time[1:] == time[:-1])
    if same.any():
        row = int(order[1:][same].min())
        place, given = table.at(row, columns.time)
        of_client = f" of client {rows.names[rows.client[row]]!r}" if columns.client else ""
        raise table.refuse(place, columns.time, f"another than in all other rows{of_client}", given)


def _numbers(cells: Sequence[Any], decimal: str = ".") -> Numbers:
    """Return the numbers that cells are, or stand for; NaN for one that is none.

    Beside another `decimal` a point stands between thousands, and Python's "_" is in no number of a table.
    """
    if decimal == "." and all(type(cell) is str for cell in cells) and "_" not in "".join(cells):
        with suppress(ValueError):
            return np.array([*map(float, cells)], dtype=np.float64)
    return np.array([_number(cell, decimal) for cell in cells], dtype=np.float64)


def _number(cell: Any, decimal: str) -> float:
    if isinstance(cell, bool) or (
        isinstance(cell, str) and ("_" in cell or (decimal != "." and "." in cell))
    ):
        return np.nan
    try:
        return float(cell.replace(decimal, ".") if isinstance(cell, str) else cell)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def _days(table: Table, part: Part, columns: SeriesColumns, first: _NoNumber | None = None) -> Numbers:
    """Return dates as days since 1970; those without a zone are taken as UTC.

    Where a number stands among them, UserError for the `first` time that is none.
    """
    import pandas as pd

    cells = part.cells[columns.time]
    # A table that knows dates holds them as such.
    texts = [cell.isoformat() if hasattr(cell, "isoformat") else str(cell) for cell in cells]
    known = columns.time_format and texts == list(cells)
    try:
        parsed: Any = pd.to_datetime(
            pd.Series(texts, dtype=str),
            format=columns.time_format if known else "ISO8601",
            utc=True,
            errors="coerce",
        )
    except ValueError as error:  # of the format itself
        given = columns.time_format
        raise UserError(f"time_format must be as for datetime.strptime, got {given!r}") from error
    if parsed.isna().any():
        row = int(np.flatnonzero(parsed.isna())[0])
        allowed = (
            f"of the form {columns.time_format!r}"
            if columns.time_format
            else "a number in every row or a date as in ISO 8601 (or set time_format = '%d.%m.%Y', say)"
        )
        place, given = part.place[row], cells[row]
        if first and np.isfinite(_number(given, columns.decimal)):
            place, given = first
        raise table.refuse(place, columns.time, allowed, given)
    try:
        days: Numbers = ((parsed - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).to_numpy()
    except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:  # it counts nanoseconds
        row = int(np.argmax(~parsed.dt.year.between(*_YEARS).to_numpy()))
        allowed = f"a date of the years {_YEARS[0]} to {_YEARS[1]}"
        raise table.refuse(part.place[row], columns.time, allowed, cells[row]) from error
    return days
