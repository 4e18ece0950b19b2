"""The picture of many small pictures."""

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_grid(images: Tensor, title: str, columns: int) -> "Figure":
    """Draw images (N, C, H, W) in [0, 1], grey or RGB, row by row."""
    # Only the server draws; workers are spared the seconds that these imports take.
    from matplotlib.figure import Figure
    from torchvision.utils import make_grid

    grid = make_grid(images.cpu(), nrow=columns, padding=1, pad_value=0.5)  # (3, rows * H', columns * W')
    height, width = grid.shape[1:]
    figure = Figure(figsize=(6, 6 * height / width + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)
    return figure
