"""Figures of texts that were written: tables of them, and what the network attends to."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

_LINE = 110
"""Characters of a line of the table."""
_MOST = 4 * _LINE
"""Characters of a text that a table shows."""
_SIDE = 4.2
"""Inches of one map."""
PLAIN, QUIET, WRONG, WRITTEN = "#222222", "#777777", "#b00020", "#1f5fa8"
"""Colours of texts: what is so, what stands beside it, what is not so, and what the network says."""


def translations_figure(rows: Sequence[tuple[str, str, str]]) -> Figure:
    """Draw texts, each with its reference and what was written; red is what is not the reference."""
    blocks = [
        [
            ("source", source, QUIET),
            ("reference", reference, PLAIN),
            ("output", output, PLAIN if output == reference else WRONG),
        ]
        for source, reference, output in rows
    ]
    return table_figure("Held-out texts, their references and what was written", blocks)


def dialogues_figure(rows: Sequence[tuple[Sequence[str], str, str]]) -> Figure:
    """Draw contexts, each with the true next turn and what was written instead, which may be as good."""
    blocks = [
        [
            *(("", turn, QUIET) for turn in context),
            ("true", reference, PLAIN),
            ("written", output, WRITTEN),
        ]
        for context, reference, output in rows
    ]
    return table_figure("Held-out dialogues, how they went on, and what was written", blocks)


def table_figure(title: str, blocks: Sequence[Sequence[tuple[str, str, str]]]) -> Figure:
    """Draw blocks of (label, text, colour) below one another, their texts folded."""
    lines: list[tuple[str, str]] = []
    for block in blocks:
        for label, text, colour in block:
            lines += _wrapped(label, text, colour)
        lines.append(("", PLAIN))
    figure = Figure(figsize=(8.5, 0.8 + 0.17 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(ylim=(len(lines), 0))
    axes.set_title(title, loc="left")
    for number, (line, colour) in enumerate(lines):
        # A dollar sign is text here, not the start of a formula.
        style: dict[str, Any] = {"va": "top", "family": "monospace", "fontsize": 8, "color": colour}
        axes.text(0, number, line, transform=axes.get_yaxis_transform(), parse_math=False, **style)
    return figure


def attention_figure(maps: Sequence[tuple[Sequence[str], Sequence[str], Tensor]]) -> Figure:
    """Draw a map for each (source tokens, written tokens, weights (T, S)): dark is where it has looked."""
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(_SIDE * columns, _SIDE * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    for axes, (source, written, weights) in zip(grid.flat, maps, strict=False):
        axes.imshow(weights.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        for axis, tokens in ((axes.xaxis, source), (axes.yaxis, written)):
            axis.set_ticks(range(len(tokens)))
            axis.set_ticklabels([_printable(token) for token in tokens], fontsize=5, parse_math=False)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
    figure.suptitle("Where the network looks in the source (across) for each token (down)", fontsize=9)
    return figure


def _wrapped(label: str, text: str, colour: str) -> list[tuple[str, str]]:
    shown = f"{text[:_MOST]} ..." if len(text) > _MOST else text
    printable = "".join(" " if letter.isspace() else _printable(letter) for letter in shown)
    parts = textwrap.wrap(printable, _LINE) or [""]
    return [(f"{label if not number else '':<10}{part}", colour) for number, part in enumerate(parts)]


def _printable(token: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in token)
