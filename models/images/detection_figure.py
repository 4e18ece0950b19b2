"""The picture of images with the boxes that are there and those that were found."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from models.data.boxes import IGNORED
from models.images.detection_scores import CERTAIN, Found, Truth

_TRUE, _FOUND, _ASIDE = "#2ca02c", "#ff7f0e", "#999999"
_COLUMNS = 4
_SIDE = 2.3
"""Inches of an image's longer side."""


def detections_figure(
    images: Tensor, truth: Sequence[Truth], found: Sequence[Found], classes: Sequence[str]
) -> Figure:
    """Draw images (N, C, H, W) in [0, 1] with what is there, and what was found with a score of CERTAIN."""
    height, width = images.shape[-2:]
    columns = min(_COLUMNS if width < 2 * height else 2, len(images))
    rows = -(-len(images) // columns)
    across, down = _SIDE * max(1, width / height), _SIDE * max(1, height / width)
    shrunk = min(1.0, 11 / (across * columns))
    size = across * columns * shrunk, down * rows * shrunk + 0.7
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, there, seen in zip(grid.flat, images, truth, found, strict=False):
        axes.imshow(image.expand(3, -1, -1).permute(1, 2, 0).numpy(), interpolation="nearest")
        for box, label in zip(there.box.tolist(), there.label.tolist(), strict=True):
            name = "" if label == IGNORED else classes[label]
            _draw(axes, box, name, _ASIDE if label == IGNORED else _TRUE, below=True)
        for box, label, score in zip(*(column.tolist() for column in seen), strict=True):
            if score >= CERTAIN:
                _draw(axes, box, f"{classes[label]} {score:.2f}", _FOUND)
    lines = {"there": _TRUE, f"found, with a score of {CERTAIN} or more": _FOUND}
    if any((each.label == IGNORED).any() for each in truth):
        lines["counts neither way"] = _ASIDE
    handles = [Line2D([], [], color=colour, label=name) for name, colour in lines.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(lines), frameon=False, fontsize=9)
    return figure


def _draw(axes: Axes, box: Sequence[float], text: str, colour: str, below: bool = False) -> None:
    """Draw a box with its text at its upper left corner, or below at its lower left one."""
    left, top, right, bottom = (side - 0.5 for side in box)  # a pixel's middle is a whole number here
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.2)
    )
    style = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 0.5}
    y, side = (bottom, "top") if below else (top, "bottom")
    axes.text(left, y, text, color=colour, fontsize=6, va=side, clip_on=True, bbox=style, parse_math=False)
