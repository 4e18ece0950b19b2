"""Figures of pictures and texts, with what is said of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from models.data.dataset import Examples
from models.data.modalities import HAS, IMAGE, TEXT, read_texts

_RIGHT, _WRONG, _INK, _FAINT = "#1b7837", "#b00020", "#222222", "#777777"
_LONGEST = 34
"""Characters of a text that there is room for."""
_NAMES = {"together": "both", IMAGE: "picture alone", TEXT: "text alone"}
_COLOURS = {"together": "#2f6fa8", IMAGE: "#d08a3c", TEXT: "#8a9a5b"}


def examples_figure(
    data: Examples, said: Mapping[str, Tensor], classes: Sequence[str], max_value: float
) -> Figure:
    """Draw examples with their texts and classes, and what is `said` of each, as in `classes_figure`."""
    columns = 3
    rows = -(-len(data) // columns)
    figure = Figure(figsize=(9.0, 0.5 + 1.45 * rows), layout="constrained")
    figure.suptitle("Held-out examples, and what is said of them", fontsize=11, color=_INK)
    grid = figure.subplots(rows, columns, squeeze=False)
    texts = read_texts(data["text"])
    for axes in grid.flat:
        axes.set_axis_off()
    for row, axes in enumerate(grid.flat[: len(data)]):
        true = int(data["label"][row])
        _draw(axes, data, row, max_value)
        _write(axes, 0.95, f'"{_short(texts[row])}"' if data[HAS + TEXT][row] else "(no text)", _INK)
        _write(axes, 0.77, f"it is: {classes[true]}", _FAINT)
        for line, (name, predicted) in enumerate(said.items()):
            if name != "together" and not data[HAS + name][row]:
                continue
            given = int(predicted[row])
            colour = _RIGHT if given == true else _WRONG
            _write(axes, 0.59 - 0.18 * line, f"{_NAMES[name]}: {classes[given]}", colour)
    return figure


def classes_figure(data: Examples, said: Mapping[str, Tensor], classes: Sequence[str]) -> Figure:
    """Draw how often each class is found, by what the model goes by: name -> classes (N,)."""
    figure = Figure(figsize=(max(6.0, 0.6 * len(classes)), 3.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(said)
    label = data["label"].cpu().numpy()
    for place, (name, predicted) in enumerate(said.items()):
        asked = np.ones(len(label), bool) if name == "together" else data[HAS + name].cpu().numpy() > 0
        right = (predicted.numpy() == label) & asked
        counts, found = (np.bincount(label[each], minlength=len(classes)) for each in (asked, right))
        shares = found / np.maximum(counts, 1)
        mean = right.sum() / max(asked.sum(), 1)
        places = np.arange(len(classes)) + (place - (len(said) - 1) / 2) * width
        axes.bar(places, shares, width, color=_COLOURS[name], label=f"{_NAMES[name]} ({mean:.3f})")
    axes.set(ylim=(0, 1), ylabel="found", xlabel="class", title="Held-out examples that are found, by class")
    axes.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 3 else "horizontal")
    figure.legend(loc="outside lower center", ncols=len(said), frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def nearest_figure(data: Examples, order: Tensor, max_value: float) -> Figure:
    """Draw the first texts, each with the pictures in its row of `order` (Q, K), the nearest first.

    A picture of the text's own class has a green frame, another a red one.
    """
    texts = read_texts(data["text"][: len(order)])
    figure = Figure(figsize=(2.6 + 1.0 * order.shape[1], 0.5 + 1.0 * len(order)), layout="constrained")
    figure.suptitle("Held-out texts, and the pictures that are nearest to each", fontsize=11, color=_INK)
    widths = [2.6, *[1.0] * order.shape[1]]
    grid = figure.subplots(len(order), len(widths), squeeze=False, width_ratios=widths)
    for row, text in enumerate(texts):
        grid[row, 0].set_axis_off()
        grid[row, 0].text(0.0, 0.5, _short(text), va="center", fontsize=8, color=_INK, parse_math=False)
        for place, other in enumerate(order[row].tolist()):
            axes = grid[row, place + 1]
            axes.imshow(_pixels(data, other, max_value), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            same = bool(data["label"][other] == data["label"][row])
            for spine in axes.spines.values():
                spine.set(color=_RIGHT if same else _WRONG, linewidth=2)
    return figure


def _draw(axes: Axes, data: Examples, row: int, max_value: float) -> None:
    inner = axes.inset_axes((0.0, 0.05, 0.32, 0.9))
    inner.set(xticks=[], yticks=[])
    if data[HAS + IMAGE][row]:
        inner.imshow(_pixels(data, row, max_value), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        inner.text(0.5, 0.5, "(no picture)", ha="center", va="center", fontsize=7, color=_FAINT)


def _pixels(data: Examples, row: int, max_value: float) -> Any:
    """Return a picture as (H, W), or (H, W, 3)."""
    image = data["image"][row].cpu().float() / max_value
    return image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()


def _write(axes: Axes, height: float, text: str, colour: str) -> None:
    # A dollar sign is text here, not the start of a formula.
    style: dict[str, Any] = {"va": "top", "fontsize": 8, "color": colour, "parse_math": False}
    axes.text(0.37, height, text, transform=axes.transAxes, **style)


def _short(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}…"
