"""The picture of which classes are taken for which."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_NUMBERED = 30
"""Classes up to which there is room to write the numbers."""


def confusion_matrix(label: Tensor, predicted: Tensor, classes: Sequence[str]) -> "Figure":
    """Draw how many examples of each true class (rows) are predicted as each class (columns)."""
    # Only the server draws; workers are spared what this import takes. scikit-learn's takes a second more.
    from matplotlib.figure import Figure

    size = len(classes)
    counts = torch.bincount(label * size + predicted, minlength=size * size).reshape(size, size)
    side = max(6, 0.3 * size)
    figure = Figure(figsize=(side, side - 0.5), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(counts.numpy(), cmap="Blues", interpolation="nearest")
    middle = float(counts.min() + counts.max()) / 2
    numbered = torch.arange(size if size <= MOST_NUMBERED else 0)
    for row, column in torch.cartesian_prod(numbered, numbered).reshape(-1, 2).tolist():
        count = int(counts[row, column])
        colour = "white" if count > middle else "#08306b"  # the lightest and the darkest of "Blues"
        axes.text(column, row, str(count), ha="center", va="center", color=colour)
    axes.set_xticks(range(size), classes, rotation=45 if max(map(len, classes)) > 2 else "horizontal")
    axes.set_yticks(range(size), classes)
    axes.set_xlabel("Predicted label")
    axes.set_ylabel("True label")
    axes.set_title("Confusion matrix, held-out examples")
    return figure
