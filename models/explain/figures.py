"""Pictures of what models look at: maps over images, words on colours, bars for features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from models.explain.explanation import IMAGE, WORDS, Explained, Explanation

IMAGES, TEXTS = 8, 6
"""Examples that a picture has room for."""
_INK, _SOFT = "#222222", "#777777"
_COLOURS = ("#2f6fde", "#e2711d")
_FOR, _AGAINST = np.array([0xE2, 0x71, 0x1D]) / 255, np.array([0x2F, 0x6F, 0xDE]) / 255
"""Colours of what speaks for an answer, and against it."""
_LINE, _LINES = 100, 6
"""Characters of a line of words, and lines of a text that are drawn."""
_INCHES_A_CHARACTER = 9 * 0.602 / 72
"""Of a monospaced font of 9 points."""


Named = tuple[str, Explanation]
"""What a model is called, and what it looks at."""


def draw(explanations: Sequence[Named], title: str) -> Figure:
    """Draw what several models look at in the same examples; one model is a case of that."""
    form = explanations[0][1].form
    if form == IMAGE:
        return _images(explanations, title)
    return _texts(explanations, title) if form == WORDS else _bars(explanations, title)


def shares(explanation: Explanation) -> Tensor:
    """Return the part that each feature (P,) has in the mean size of the values."""
    sizes = sum(each.values.abs() for each in explanation.examples)
    assert isinstance(sizes, Tensor)
    whole = sizes.sum()
    return sizes / whole if whole else sizes


def _images(explanations: Sequence[Named], title: str) -> Figure:
    first = explanations[0][1]
    columns = min(IMAGES, len(first.examples))
    lines = len(explanations) + 1
    figure = Figure(figsize=(1.15 * columns + 1.1, 1.25 * lines + 0.7), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, example in zip(grid[0], first.examples, strict=False):
        assert example.image is not None
        axes.imshow(_picture(example.image), vmin=0, vmax=1, cmap="gray", interpolation="nearest")
        wrong = "" if example.truth == example.answer else f"\nis {_cut(example.truth)}"
        axes.set_title(f"{_cut(example.answer)}{wrong}", fontsize=8, parse_math=False)
    for line, (name, explanation) in zip(grid[1:], explanations, strict=True):
        line[0].set_ylabel(_cut(name), fontsize=8, parse_math=False)
        for axes, example in zip(line, explanation.examples, strict=False):
            _map(axes, example, explanation.signed)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _map(axes: Axes, example: Explained, signed: bool) -> None:
    assert example.image is not None
    most = float(example.values.abs().max()) or 1.0
    low, colours = (-most, "RdBu_r") if signed else (0.0, "magma")
    axes.imshow(example.values.numpy(), vmin=low, vmax=most, cmap=colours, interpolation="nearest")


def _picture(image: Tensor) -> Any:
    """(C, H, W) -> what imshow takes: (H, W), or (H, W, 3)."""
    return (image[0] if len(image) != 3 else image.permute(1, 2, 0)).numpy()


def _texts(explanations: Sequence[Named], title: str) -> Figure:
    first = explanations[0][1]
    drawn: list[
        tuple[float, Explained | None, str]
    ] = []  # line, what is drawn there, what is written before it
    line = 0.0
    for number, example in enumerate(first.examples[:TEXTS]):
        wrong = "" if example.truth == example.said else f", is {example.truth}"
        drawn.append((line, None, f"{example.answer}{wrong}"))
        line += 1.3
        for name, explanation in explanations:
            drawn.append((line, explanation.examples[number], name if len(explanations) > 1 else ""))
            line += 1.3 * len(_wrapped(explanation.examples[number])) + 0.2
        line += 0.7
    left = max(len(_cut(name)) for name, _ in explanations) + 2
    left = left if len(explanations) > 1 else 1
    figure = Figure(figsize=(_INCHES_A_CHARACTER * (_LINE + left + 2), 0.19 * (line + 2.2)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-left, _LINE + 2), ylim=(line, -2.2))
    axes.axis("off")
    style: dict[str, Any] = {"va": "center_baseline", "parse_math": False}
    axes.text(-left + 1, -1.4, title, size=10, color=_INK, **style)
    for line, example_or_none, said in drawn:
        if example_or_none is None:
            axes.text(0, line, said, size=9, weight="bold", color=_INK, **style)
            continue
        axes.text(-left + 1, line, _cut(said), size=8, color=_SOFT, **style)
        _words(axes, line, example_or_none, style)
    return figure


def _words(axes: Axes, line: float, example: Explained, style: dict[str, Any]) -> None:
    most = float(example.values.abs().sum() and example.values.abs().max()) or 1.0  # a text may be empty
    for down, words in enumerate(_wrapped(example)):
        for column, place in words:
            word, share = _printable(example.parts[place]), float(example.values[place]) / most
            colour = 1 - abs(share) * (1 - (_FOR if share > 0 else _AGAINST))
            at = line + 1.3 * down
            axes.add_patch(
                Rectangle((column - 0.3, at - 0.6), len(word) + 0.6, 1.2, color=colour, linewidth=0)
            )
            axes.text(column, at, word, size=9, family="monospace", color=_INK, **style)


def _wrapped(example: Explained) -> list[list[tuple[int, int]]]:
    """Return the lines of a text, each of (column, place of a word); what is too long is left out."""
    lines: list[list[tuple[int, int]]] = [[]]
    column = 0
    for place, word in enumerate(example.parts):
        if column and column + len(_printable(word)) > _LINE:
            if len(lines) == _LINES:
                break
            lines.append([])
            column = 0
        lines[-1].append((column, place))
        column += len(_printable(word)) + 1
    return lines


def _bars(explanations: Sequence[Named], title: str) -> Figure:
    first = explanations[0][1]
    parts: Sequence[str] = first.examples[0].parts
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(explanations)
    for number, (name, explanation) in enumerate(explanations):
        places = np.arange(len(parts)) + (number - (len(explanations) - 1) / 2) * width
        colour = _COLOURS[number % len(_COLOURS)]
        axes.bar(places, 100 * shares(explanation).numpy(), width, color=colour, label=name)
    step = -(-len(parts) // 30)
    shown = range(len(parts))[::-step][::-1]
    axes.set_xticks(shown, [_cut(parts[place]) for place in shown], rotation=90, fontsize=7, parse_math=False)
    axes.set_ylabel("% of all attributions")
    axes.spines[["top", "right"]].set_visible(False)
    if len(explanations) > 1:
        axes.legend(frameon=False)
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    return figure


def _cut(text: str, most: int = 18) -> str:
    text = _printable(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _printable(word: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in word)
