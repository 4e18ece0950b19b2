"""Parquet files as tables."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.core.errors import UserError
from models.data.table import PART, Part, Table

# pyarrow is imported where it is used: it is optional.


class ParquetTable(Table):
    """A Parquet file, of which the columns that are asked for are read, some of its rows at a time."""

    counts = "row"

    def __init__(self, path: Path) -> None:
        need("pyarrow", "parquet:FILE")
        self.path, self.name = path, str(path)

    @cached_property
    def columns(self) -> Sequence[str]:
        """Return the names in the file's schema; of a column in a column, the outer one's."""
        return list(self._schema.names)

    @cached_property
    def _schema(self) -> Any:
        with self._opened() as file:
            return file.schema_arrow

    def parts(self, columns: Sequence[str]) -> Iterator[Part]:
        """Yield the rows."""
        first = 1
        with self._opened() as file:
            for batch in file.iter_batches(batch_size=PART, columns=list(dict.fromkeys(columns))):
                place = range(first, first + batch.num_rows)
                first += batch.num_rows
                if batch.num_rows:
                    yield Part(place, {column: self._cells(batch, column, place) for column in columns})

    def _cells(self, batch: Any, column: str, place: Sequence[int]) -> Sequence[Any]:
        return named_cells(python_cells(self, column, place, batch.column(column)), self.classes(column))

    def classes(self, column: str) -> tuple[str, ...]:
        """Return the names of a ClassLabel's numbers, as Hugging Face's `datasets` writes them."""
        written = (self._schema.metadata or {}).get(b"huggingface", b"{}")
        try:
            names = json.loads(written)["info"]["features"][column]["names"]
        except (ValueError, KeyError, TypeError):  # none, or somebody else's
            return ()
        return tuple(map(str, names)) if isinstance(names, list) else ()

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(self.path) as file:
                yield file
        except pyarrow.ArrowException as error:
            raise UserError(
                f"{self.path} is no Parquet file that can be read ({' '.join(str(error).split())[:200]})"
            ) from error


def python_cells(table: Table, column: str, place: Sequence[int], stored: Any) -> list[Any]:
    """Return the values of a column of Arrow's; UserError for a date that Python cannot hold."""
    try:
        return list(stored.to_pylist())
    except OverflowError:
        for row, cell in zip(place, stored, strict=True):
            try:
                cell.as_py()
            except OverflowError as error:
                raise table.refuse(row, column, "a date of the years 1 to 9999", str(error)) from error
        raise


def named_cells(cells: Sequence[Any], names: Sequence[str]) -> Sequence[Any]:
    """Return cells with the names of numbers in the place of these; without names, as they are."""
    if not names:
        return cells
    return [names[cell] if type(cell) is int and 0 <= cell < len(names) else cell for cell in cells]


def need(package: str, name: str) -> None:
    """Raise UserError where an optional package is not installed."""
    if find_spec(package) is None:
        raise UserError(f"dataset {name!r} needs a package that is not here: pip install 'polyfed[tables]'")
