"""Series from CSV files; what a file holds that cannot be read is refused by its line."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.series import HORIZON, WINDOW, Cut, Series, windows_of
from models.data.source import source_path

# pandas is imported where it is used: it costs every worker a part of a second.

COLUMNS = ("client", "time", "value")


@dataclass(frozen=True)
class Rows:
    """The rows of a file as they are written."""

    path: Path
    line: Sequence[int]
    """Number of each row's line; the header's is 1."""
    client: Sequence[str]
    time: Sequence[str]
    value: Sequence[str]

    def refuse(self, row: int, column: str, allowed: str) -> UserError:
        """Return the error for the value of a column in a row."""
        given = getattr(self, column)[row][:60]
        return UserError(f"{self.path}, line {self.line[row]}: {column} must be {allowed}, got {given!r}")


def load_csv(
    config: TaskConfig,
    window: int = WINDOW,
    horizon: int = HORIZON,
    max_step: float = 0.0,
    time_format: str = "",
) -> Dataset:
    """Return the series of "csv:PATH": a file with the columns time, value and client, in any order.

    A client is one series; its rows may come unsorted. Times are numbers or dates: ISO 8601, or in the
    `time_format` of `datetime.strptime`. An example holds consecutive rows of its series, whatever the time
    between them, unless `max_step` forbids holes. Raises UserError for a file that is not there, and for the
    first line that cannot be read.
    """
    import pandas as pd

    cut = Cut(window, horizon, max_step)
    rows = read_rows(source_path(config))
    value, numeric = _numbers(rows.value), None if time_format else _numbers(rows.time)
    for row in np.flatnonzero(~np.isfinite(value)).tolist():
        raise rows.refuse(row, "value", "a finite number")
    time = _days(rows, time_format) if numeric is None or not np.isfinite(numeric).all() else numeric
    frame = pd.DataFrame({"client": rows.client, "time": time, "value": value})
    for row in np.flatnonzero(frame.duplicated(["client", "time"])).tolist():
        raise rows.refuse(row, "time", f"another than in all other rows of client {rows.client[row]!r}")
    groups = frame.sort_values("time").groupby("client")
    series = [Series(str(name), part["time"].to_numpy(), part["value"].to_numpy()) for name, part in groups]
    return windows_of(config.dataset, series, unit="", dates=time is not numeric, cut=cut)


def read_rows(path: Path) -> Rows:
    """Read the three columns of a CSV file in UTF-8; an empty line is no row.

    Raises UserError where there is no such file, and for the first line that is no row of it.
    """
    lines: list[int] = []
    cells: dict[str, list[str]] = {column: [] for column in COLUMNS}
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            places = _places(path, header)
            number = reader.line_num
            for row in reader:
                first, number = number + 1, reader.line_num  # a quoted value may hold a line feed
                if not row:
                    continue
                if len(row) != len(header):
                    raise UserError(
                        f"{path}, line {first}: expected {len(header)} values with commas between, as the "
                        f"header has, got {len(row)}: {','.join(row)[:100]!r}"
                    )
                lines.append(first)
                for column, place in places.items():
                    cells[column].append(row[place])
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 ({error}): save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path}, line {number + 1}: no row of a CSV file ({error})") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a CSV file") from error
    rows = Rows(path, lines, **cells)
    for column in COLUMNS:
        for row_number, cell in enumerate(cells[column]):
            if not cell.strip():
                raise rows.refuse(row_number, column, "filled in, or the row left out")
    return rows


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Return where each of the three columns stands."""
    if missing := [column for column in COLUMNS if column not in header]:
        raise UserError(
            f"{path} needs the columns {', '.join(COLUMNS)}, and its first line lacks {', '.join(missing)}: "
            f"it is {','.join(header)[:100]!r}; rename its own, with commas between"
        )
    if twice := [column for column in COLUMNS if header.count(column) > 1]:
        raise UserError(f"{path} has the column {twice[0]} twice: rename one of them")
    return {column: header.index(column) for column in COLUMNS}


def _numbers(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the numbers that texts are; NaN for a text that is none."""
    try:
        return np.array([float(text) for text in texts], dtype=np.float64)
    except ValueError:
        return np.array([_number(text) for text in texts], dtype=np.float64)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _days(rows: Rows, time_format: str) -> NDArray[np.float64]:
    """Return dates as days since 1970; those without a zone are taken as UTC."""
    import pandas as pd

    try:
        parsed: Any = pd.to_datetime(
            pd.Series(rows.time, dtype=str), format=time_format or "ISO8601", utc=True, errors="coerce"
        )
    except ValueError as error:  # of the format itself
        raise UserError(f"time_format must be as for datetime.strptime, got {time_format!r}") from error
    if parsed.isna().any():
        row = int(np.flatnonzero(parsed.isna())[0])
        if time_format:
            raise rows.refuse(row, "time", f"of the form {time_format!r}")
        raise rows.refuse(
            row,
            "time",
            "a number in every row or a date as in ISO 8601 (or set time_format = '%d.%m.%Y', say)",
        )
    days: NDArray[np.float64] = ((parsed - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).to_numpy()
    return days
