"""The figures of the benchmarks in the docs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.figure import Figure

from simulations.bench.round_table import Runs, seconds_a_round
from simulations.bench.scaling import AXES, Found, middle

COLOURS = {"polyfed": "tab:blue", "stock": "tab:red", "plain": "tab:gray"}
"""First word of a system -> its colour."""


def draw_rounds(measured: Mapping[str, Runs]) -> Figure:
    """Draw a panel a workload: bars of the median, and lines from the fastest run to the slowest."""
    figure = Figure(figsize=(9, 2.4 * len(measured)), layout="constrained")
    panels = figure.subplots(len(measured), 1, squeeze=False)[:, 0]
    for axes, (workload, by_system) in zip(panels, measured.items(), strict=True):
        each = [seconds_a_round(runs) for runs in by_system.values()]
        middles = [median(found) for found in each]
        below = [value - min(found) for value, found in zip(middles, each, strict=True)]
        above = [max(found) - value for value, found in zip(middles, each, strict=True)]
        colours = [COLOURS[system.split()[0].strip(",")] for system in by_system]
        axes.barh(list(by_system), middles, xerr=[below, above], color=colours)
        axes.invert_yaxis()
        axes.set_title(f"{workload}: seconds a round", loc="left")
    return figure


def draw_scaling(found: Sequence[Found]) -> Figure:
    """Draw a panel an axis: seconds a round against its size, a line a system."""
    points = middle(found)
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for panel, axis in zip(figure.subplots(2, 2).flat, AXES, strict=True):
        here = [point for point in points if point.axis == axis]
        for system in dict.fromkeys(point.system for point in here):
            line = sorted((point.size, point.seconds) for point in here if point.system == system)
            sizes, seconds = zip(*line, strict=True)
            panel.plot(sizes, seconds, marker="o", label=system)
        if axis == "workers":
            panel.set_xticks([1, 2])
        else:
            panel.set(xscale="log", yscale="log")
        panel.set(xlabel=axis, ylabel="seconds a round")
        if here:
            panel.legend()
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, the same bytes for the same numbers."""
    with mpl.rc_context({"svg.hashsalt": "polyfed", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
