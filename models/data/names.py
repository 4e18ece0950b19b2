"""What classes are called in tables, whatever their cells hold."""

import re
from typing import Any

from models.data.table import Table

LONGEST_CLASS = 100
"""Characters of a class's name, which metrics are called by."""


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
    return name.removesuffix(".0") if re.fullmatch(r"-?[0-9]+\.0", name) else name
