"""Texts without classes from tables: all of a client's rows are one document."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.labelled_text import TextColumns, encoded_texts
from models.data.names import client_names
from models.data.table import Part, Table, is_empty
from models.data.text import windows_of


def read_text(name: str, tables: Sequence[Table], columns: TextColumns) -> Dataset:
    """Return the windows of the texts of one table, or of one for each part; all of them lie in memory.

    A row without a text is left out. Without a column of clients there is one document.
    """
    held_out = [_documents(table, replace(columns, client="")) for table in tables[1:]]
    return windows_of(name, _documents(tables[0], columns), *held_out)


def _documents(table: Table, columns: TextColumns) -> dict[str, bytes]:
    """Return client -> its texts, each after the end of a line."""
    named = [*columns.text, *([columns.client] if columns.client else [])]
    table.check_columns(named)
    found: dict[str, list[bytes]] = {}
    for part in table.parts(named):
        rows = [
            row
            for row in range(len(part.place))
            if not all(is_empty(part.cells[each][row]) for each in columns.text)
        ]
        chosen = Part([part.place[row] for row in rows], {each: _at(part, each, rows) for each in named})
        owners = client_names(table, chosen, columns.client) if columns.client else [table.name] * len(rows)
        for owner, content in zip(owners, encoded_texts(table, chosen, columns.text), strict=True):
            found.setdefault(owner, []).append(content)
    if not found:
        raise UserError(f"{table.name} holds no text in {' or '.join(columns.text)}")
    return {owner: b"\n".join(found[owner]) for owner in sorted(found)}


def _at(part: Part, column: str, rows: Sequence[int]) -> list[Any]:
    return [part.cells[column][row] for row in rows]
