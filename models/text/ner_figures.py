"""What a person would look at: the classification report, and sentences with the entities that were found."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from models.task import Metrics

_INK, _FAINT, _WRONG = "#333333", "#d9dde2", "#c62828"
# Light enough for black text on them, and told apart by every kind of sight.
_COLOURS = ("#a6cee3", "#fdbf6f", "#b2df8a", "#cab2d6", "#ffff99", "#fb9a99", "#dddddd")
_SCORES = ("precision", "recall", "f1")
_WIDTH = 100
"""Characters of a line of tagged words."""
_INCHES_A_CHARACTER = 10 * 0.602 / 72
"""Of a monospaced font of 10 points."""
Tagged = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""Words, true tags, predicted tags."""


def report_figure(metrics: Metrics, types: Sequence[str]) -> Figure:
    """Draw the table that seqeval prints: a line for each type, then the means over entities and types.

    `metrics` are those of `models.text.entities.entity_metrics`.
    """
    rows = [[_ratio(metrics, f"{score}-{kind}") for score in _SCORES] for kind in types]
    support = [int(metrics[f"recall-{kind}"][1]) for kind in types]
    total = sum(support)
    micro = [_ratio(metrics, score) for score in _SCORES]
    macro = [sum(column) / max(len(types), 1) for column in zip(*rows, strict=True)]
    weighted = [
        sum(value * size for value, size in zip(column, support, strict=True)) / max(total, 1)
        for column in zip(*rows, strict=True)
    ]
    lines = [*zip(types, rows, support, strict=True)]
    lines += [("micro avg", micro, total), ("macro avg", macro, total), ("weighted avg", weighted, total)]

    figure = Figure(figsize=(6.5, 0.9 + 0.3 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    axes.axis("off")
    axes.set_title("Classification report, held-out examples")
    table = axes.table(
        cellText=[[*(f"{value:.3f}" for value in scores), f"{size:,}"] for _, scores, size in lines],
        rowLabels=[name for name, _, _ in lines],
        colLabels=[*_SCORES, "entities"],
        loc="center",
    )
    table.scale(1, 1.3)
    for (row, _), cell in table.get_celld().items():
        cell.set_edgecolor(_FAINT)
        if row in (0, len(types) + 1):  # below the header and above the means
            cell.set_text_props(weight="bold")
    return figure


def sentences_figure(sentences: Sequence[Tagged], types: Sequence[str]) -> Figure:
    """Draw sentences: words on the colour of the type that was predicted, true tags below wrong ones."""
    words, height = _lay_out(sentences)
    figure = Figure(figsize=(_INCHES_A_CHARACTER * (_WIDTH + 4), 0.14 * (height + 3)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-2, _WIDTH + 2), ylim=(height, -3))
    axes.axis("off")
    colours = dict(zip(types, cycle(_COLOURS)))
    for column, line, word, true, predicted in words:
        style: dict[str, Any] = {"family": "monospace", "va": "center_baseline"}
        if kind := predicted[2:]:
            # An entity's colour goes on from word to word.
            before = 0.9 if predicted[0] == "I" else 0.1
            box = Rectangle((column - before, line - 0.9), len(word) + before + 0.1, 1.8, color=colours[kind])
            axes.add_patch(box)
        axes.text(column, line, word, size=10, color=_INK, **style)
        if true != predicted:
            axes.text(column, line + 1.5, true, size=6, color=_WRONG, **style)
    keys = [Patch(color=colours[kind], label=kind) for kind in types]
    axes.legend(handles=keys, loc="upper left", ncols=len(keys), frameon=False, borderpad=0, fontsize=9)
    return figure


def _lay_out(sentences: Sequence[Tagged]) -> tuple[list[tuple[int, float, str, str, str]], float]:
    """Return (column, line, word, true tag, predicted tag) of each word, and the height of all lines."""
    placed, line = [], 0.0
    for sentence in sentences:
        column = 0
        for word, true, predicted in zip(*sentence, strict=True):
            if column and column + len(word) > _WIDTH:
                column, line = 0, line + 3
            placed.append((column, line, word, true, predicted))
            column += len(word) + 1
        line += 4
    return placed, line


def _ratio(metrics: Metrics, name: str) -> float:
    total, weight = metrics[name]
    return total / weight if weight else 0.0
