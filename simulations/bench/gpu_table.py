"""What was measured on a GPU, as a table for people and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.text import Text

from simulations.terminal import Table

HEADINGS = ("part", "what", "unit", "measured", "against", "times", "peak GPU memory", "also")
NOTHING = "–"


@dataclass(frozen=True)
class Row:
    """One measurement."""

    part: str
    what: str
    unit: str = ""
    """"s a round", of which less is better, or what there is of in a second, of which more is."""
    value: float | None = None
    against: float | None = None
    """What the value is compared with, in the same unit: `part` says what that is."""
    memory: int = 0
    """Largest memory that torch has had on the GPU, in bytes."""
    also: str = ""
    """What else was seen, such as hashes; or why there is no value."""
    failed: bool = False

    @property
    def times(self) -> float | None:
        """How many times as fast the value is."""
        if not self.value or not self.against:
            return None
        return self.against / self.value if self.unit.startswith("s ") else self.value / self.against

    def cells(self) -> tuple[str, ...]:
        """Return the row as texts, under HEADINGS."""
        times = f"{self.times:.2f}" if self.times else NOTHING
        memory = f"{self.memory / 2**20:,.0f} MiB" if self.memory else NOTHING
        numbers = (_number(self.value), _number(self.against), times, memory)
        return (self.part, self.what, self.unit or NOTHING, *numbers, self.also)


def tabulate(rows: Sequence[Row], title: str) -> Table:
    """Return the table for a terminal."""
    table = Table(box=box.SIMPLE, pad_edge=False, title=title, title_justify="left")
    for heading in HEADINGS:
        right = heading in HEADINGS[3:7]
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row.cells()))
    return table


def markdown(rows: Sequence[Row], title: str) -> str:
    """Return the table for a page of docs/."""
    rule = tuple("---:" if heading in HEADINGS[3:7] else "---" for heading in HEADINGS)
    lines = (HEADINGS, rule, *(row.cells() for row in rows))
    return f"{title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(folder: Path, rows: Sequence[Row], title: str, machine: Mapping[str, object]) -> None:
    """Write all rows so far, so that what was measured is there whatever comes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.md").write_text(markdown(rows, title), encoding="utf-8")
    numbers = {"machine": dict(machine), "rows": [{**asdict(row), "times": row.times} for row in rows]}
    (folder / "gpu.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"
