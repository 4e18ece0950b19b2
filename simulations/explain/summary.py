"""The short summary of `polyfed explain` on the terminal."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.text import Text

from server.run_schema import Alike, ExplanationSummary
from simulations.terminal import Table

if TYPE_CHECKING:
    from pandas import DataFrame

NOTHING = "–"
MOST_SHOWN = 3
"""Features that are named."""


BESIDE = ("beside", "other examples", "top tenth")


def print_summary(summaries: Sequence[ExplanationSummary], console: Console) -> None:
    """Print a row a method: how alike the models rank the parts of an example, and what counts most."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    names = columns(summaries)
    for name in names:
        table.add_column(name, justify="left" if name == "method" else "right")
    for each in summaries:
        cells = cells_of(each)
        table.add_row(*(Text(cells.get(name, "")) for name in names))
    console.print(table)
    for line in [*legend(summaries), *goes_by(summaries)]:
        console.print(Text(line))


def columns(summaries: Sequence[ExplanationSummary]) -> list[str]:
    """Return the names of the columns that the summaries need."""
    beside = any(each.beside for each in summaries)
    return ["method", *(BESIDE if beside else ()), "untrained", "gap"]


def cells_of(summary: ExplanationSummary) -> dict[str, str]:
    """Return the summary's numbers, ready to print."""
    cells = {
        "method": summary.method,
        "untrained": _number(mean(summary.untrained.rank_correlation)) if summary.untrained else NOTHING,
        "gap": percent(largest_gap(summary)),
    }
    if summary.beside:
        cells["beside"] = _number(mean(summary.beside.rank_correlation))
        cells["other examples"] = _number(mean(summary.beside.other_examples))
        cells["top tenth"] = percent(mean(summary.beside.shared_top))
    return cells


def goes_by(summaries: Sequence[ExplanationSummary]) -> list[str]:
    """Return a line a method that names the features with the largest parts of all attributions."""
    lines = []
    for each in summaries:
        known = [(name, share) for name, share in each.shares.items() if share is not None]
        most = sorted(known, key=lambda share: -share[1])[:MOST_SHOWN]
        if most:
            lines.append(
                f"{each.method} goes by {', '.join(f'{name} ({percent(part)})' for name, part in most)}"
            )
    return lines


def largest_gap(summary: ExplanationSummary) -> float:
    """Return how far attributions are at most from adding up, as a part of the mean change of the score."""
    known = [
        (abs(each.gap), abs(each.score - each.start))
        for each in summary.examples
        if each.gap is not None and each.score is not None and each.start is not None
    ]
    whole = sum(change for _, change in known)
    return max(gap for gap, _ in known) * len(known) / whole if whole else math.nan


def legend(summaries: Sequence[ExplanationSummary]) -> list[str]:
    """Return what the columns mean, a line each."""
    if not summaries:
        return []
    lines = []
    chances = [chance for each in summaries if each.beside for chance in each.beside.chance]
    by_chance = mean(chances)
    if others := dict.fromkeys(each.beside.of for each in summaries if each.beside):
        lines += [
            f"beside: rank correlation with the attributions of {', '.join(others)}, mean",
            "other examples: the same, with what that run looks at in another example",
            "top tenth: part of the most important tenth that both share"
            + ("" if math.isnan(by_chance) else f"; by chance {100 * by_chance:.0f} %"),
        ]
    lines.append("untrained: rank correlation with the model before training")
    lines.append("gap: what attributions lack at most to add up, of the mean change of a score")
    return lines


def mean(numbers: Sequence[float | None]) -> float:
    """Return the mean of what is known; nan where nothing is."""
    known = [each for each in numbers if each is not None]
    return sum(known) / len(known) if known else math.nan


def percent(share: float) -> str:
    """Return a part as text."""
    return NOTHING if math.isnan(share) else f"{100 * share:.3g} %"


def _number(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.2f}"


def explained_frame(summaries: Sequence[ExplanationSummary]) -> "DataFrame":
    """Return a row a method and example, with what is said of it and how alike the models look at it."""
    from pandas import DataFrame

    rows = []
    for each in summaries:
        for place, example in enumerate(each.examples):
            row: dict[str, object] = {"method": each.method, **example.model_dump()}
            for name, other in (("untrained", each.untrained), ("beside", each.beside)):
                if other:
                    row |= {f"{name}/{what}": column[place] for what, column in _columns_of(other).items()}
            rows.append(row)
    return DataFrame(rows).set_index(["method", "row"])


def _columns_of(other: Alike) -> dict[str, list[float | None]]:
    return {name: getattr(other, name) for name in ("rank_correlation", "shared_top", "other_examples")}
