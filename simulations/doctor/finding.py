"""What the doctor finds, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.text import Text

from simulations.terminal import Table

Level = Literal["ok", "note", "wrong"]
"""As it should be; worth knowing; what makes runs fail."""
STYLES: dict[Level, str] = {"ok": "green", "note": "yellow", "wrong": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    found: str
    level: Level = "ok"
    remedy: str = ""
    """What to do, in one line; "" where there is nothing to do."""


def tabulate(findings: Iterable[Finding]) -> Table:
    """Return a row a finding."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for each in findings:
        mark = Text(each.level, style=STYLES[each.level])
        table.add_row(mark, *map(Text, (each.subject, each.found, each.remedy)))
    return table


def in_bytes(size: float) -> str:
    """Return a number of bytes as text, in the units that memory is sold in."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
