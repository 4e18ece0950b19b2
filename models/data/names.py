"""What classes and clients are called in tables, whatever their cells hold."""

import re
from typing import Any

from models.data.held_out import label_name
from models.data.table import Part, Table

LONGEST_CLASS = 100
"""Characters of a class's name, which metrics are called by."""
LONGEST_CLIENT = 200
"""Characters of a client's name."""


def class_name(table: Table, place: int, column: str, cell: Any) -> str:
    """Return the name of a row's class; UserError for what is none."""
    name = label_text(cell)
    if not (name.isprintable() and len(name) <= LONGEST_CLASS) or isinstance(cell, dict | list):
        allowed = f"the name of a class, of at most {LONGEST_CLASS} printable characters"
        raise table.refuse(place, column, allowed, cell)
    return name


def label_text(cell: Any) -> str:
    """Return a class in one spelling: 1, 1.0, "1" and "1.0" are one, whichever half or file they are from."""
    if isinstance(cell, bool):
        return str(cell).lower()  # as JSON has it
    name = str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()
    return label_name(name.removesuffix(".0") if re.fullmatch(r"-?[0-9]+\.0", name) else name)


def client_names(table: Table, part: Part, column: str) -> list[str]:
    """Return whose each row of a part is; UserError for the first that is not filled in, or no name."""
    table.check_filled(part, [column])
    cells = part.cells[column]
    names = [str(cell).strip() for cell in cells]
    if all(map(is_client, set(names))) and {dict, list}.isdisjoint(map(type, cells)):
        return names
    row = next(
        row for row, name in enumerate(names) if not is_client(name) or isinstance(cells[row], dict | list)
    )
    allowed = f"the name of a client, of at most {LONGEST_CLIENT} printable characters"
    raise table.refuse(part.place[row], column, allowed, cells[row])


def is_client(name: str) -> bool:
    """Return whether a client may be called so, in reports and messages."""
    return name.isprintable() and 0 < len(name) <= LONGEST_CLIENT
