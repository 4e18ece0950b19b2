"""The picture of who holds what."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

_RED = "#b8383d"
_LONGEST_NAME = 16
_BLUE, _INK, _FAINT, _BLANK = "#2f6fa8", "#333333", "#d9dde2", "#f6f6f6"
_SHADES = LinearSegmentedColormap.from_list("blues", colormaps["Blues"](np.linspace(0.15, 1, 256)))
"""One hue, light to dark, which every kind of sight tells apart; the lightest differs from blank."""
_MOST_NUMBERED = 25
"""Clients, and classes, up to which there is room to write the numbers into the cells."""


def partition_figure(
    counts: list[list[int]],
    classes: Sequence[str],
    num_clients: int,
    names: Sequence[str] = (),
    attackers: Sequence[int] = (),
) -> Figure:
    """Draw the examples of each class that each client holds, and above them a bar of all its examples.

    `counts` is [client][class] for the first clients of `num_clients`. Where `classes` is empty it is
    [client][0], and the bars are the picture. `names` are what the data calls the clients; bars of those
    that attack are red.
    """
    table = np.array(counts).T  # (num_clients, num_classes) -> (num_classes, num_clients)
    shown = table.shape[1]
    bars_height, grid_height = 1.6 if classes else 3.0, min(0.28 * len(classes), 7.0)
    figure = Figure(
        figsize=(np.clip(2.0 + 0.42 * shown, 5.0, 11.0), bars_height + grid_height + 0.8),
        layout="constrained",
    )
    figure.suptitle(_title(shown, num_clients), fontsize=12, fontweight="bold", color=_INK)
    if classes:
        bars, grid = figure.subplots(2, 1, sharex=True, height_ratios=(bars_height, grid_height))
        _draw_grid(grid, table, classes)
        lowest = grid
    else:
        bars = lowest = figure.subplots()
    _draw_bars(bars, table.sum(axis=0), attackers)
    lowest.set_xlabel("client" + "; red ones attack" * any(client < shown for client in attackers))
    if names and shown <= _MOST_NUMBERED:
        lowest.set_xticks(range(shown), [_short(name) for name in names[:shown]], rotation=45, ha="right")
    else:
        ticks = MaxNLocator(nbins=25, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
        lowest.xaxis.set_major_locator(ticks)
    for axes in figure.axes:
        axes.tick_params(colors=_INK, labelsize=8, length=0)
    return figure


def _title(shown: int, num_clients: int) -> str:
    if shown < num_clients:
        return f"Who holds what: the first {shown:,} of {num_clients:,} clients"
    return f"Who holds what: {num_clients:,} client{'s' if num_clients > 1 else ''}"


def _short(name: str) -> str:
    """Return a name as there is room for; "$" would begin a formula."""
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 1]}…"


def _draw_bars(axes: Axes, totals: NDArray[np.int64], attackers: Sequence[int]) -> None:
    """Draw all examples of each client (num_clients,), and a line at their mean."""
    mean = totals.mean()
    colours = [_RED if client in attackers else _BLUE for client in range(len(totals))]
    axes.bar(np.arange(len(totals)), totals, width=0.8, color=colours)
    axes.axhline(mean, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_title(f"- - -  mean {mean:,.0f}", loc="right", fontsize=8, color=_INK)
    axes.set_ylabel("rows")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(-0.5, len(totals) - 0.5)
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_grid(axes: Axes, table: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Draw a cell for each class and client (num_classes, num_clients): the darker, the more examples."""
    # The square root keeps a few examples visible beside a thousand; a cell without any stays blank.
    norm = PowerNorm(0.5, vmin=0, vmax=max(table.max(), 1))
    edges = [np.arange(size + 1) - 0.5 for size in table.shape]
    held = np.ma.masked_equal(table, 0)
    cells = axes.pcolormesh(
        edges[1], edges[0], held, cmap=_SHADES, norm=norm, edgecolor="white", linewidth=0.5
    )
    axes.set_facecolor(_BLANK)
    step = -(-len(classes) // _MOST_NUMBERED)
    axes.set_yticks(range(0, len(classes), step), classes[::step])
    axes.set_ylabel("class")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    if max(table.shape) <= _MOST_NUMBERED:
        for row, column in np.argwhere(table):
            count = int(table[row, column])
            ink = "white" if count > 0.3 * table.max() else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7, color=ink)
    else:
        bar = axes.figure.colorbar(cells, ax=axes, label="rows", pad=0.01, aspect=30)
        bar.outline.set_visible(False)
