"""The picture of many small pictures."""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = 0.5


def image_grid(images: Tensor, title: str, columns: int) -> "Figure":
    """Draw images (N, C, H, W) in [0, 1], grey or RGB, row by row."""
    # Only the server draws; workers are spared what this import takes.
    from matplotlib.figure import Figure

    grid = in_rows(images.cpu(), columns)
    height, width = grid.shape[1:]
    figure = Figure(figsize=(6, 6 * height / width + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)
    return figure


def in_rows(images: Tensor, columns: int) -> Tensor:
    """Lay images (N, C, H, W) out row by row, with grey lines around: (3, rows * (H + 1) + 1, ...).

    It is torchvision's `make_grid`, without the seconds that importing torchvision takes.
    """
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    cells = F.pad(images.expand(-1, 3, -1, -1), (1, 0, 1, 0), value=GREY)  # a line to the left and above
    height, width = cells.shape[2:]
    missing = cells.new_full((rows * columns - len(images), 3, height, width), GREY)
    cells = torch.cat([cells, missing]).reshape(rows, columns, 3, height, width)
    grid = cells.permute(2, 0, 3, 1, 4).reshape(3, rows * height, columns * width)
    return F.pad(grid, (0, 1, 0, 1), value=GREY)
