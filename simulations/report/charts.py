"""Line and bar charts as plain coordinates, which the report's template draws in its own colours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from simulations.runs.compare import number

WIDTH, HEIGHT = 520, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 38
MARKED = 40
"""Lines of up to so many points show each of them."""
MAX_BARS = 100
STEPS = [1, 2, 2.5, 5, 10]
"""Ticks lie a power of ten times one of these apart."""


@dataclass(frozen=True)
class Line:
    """One measured quantity along the x axis, in data coordinates."""

    label: str
    colour: int
    """Index into the page's palette."""
    dash: int
    """0 solid, 1 dashed, 2 dotted."""
    points: Sequence[tuple[float, float]]


class Key(NamedTuple):
    """One entry of a legend; no colour where it stands for a dash of any colour."""

    label: str
    colour: int | None
    dash: int


@dataclass(frozen=True)
class Series:
    """What is drawn for one quantity, in pixels."""

    label: str
    colour: int
    dash: int
    path: str
    marks: Sequence[tuple[float, float]] = ()


class Stop(NamedTuple):
    """What the page says where the pointer stands; a tuple, so that it becomes a short JSON list."""

    x: float
    title: str
    values: Sequence[tuple[int, str]]
    """(index of the series, its value)."""


@dataclass(frozen=True)
class Chart:
    """Everything that the template needs to draw one chart."""

    title: str
    x_label: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    series: Sequence[Series]
    stops: Sequence[Stop]
    legend: Sequence[Key]
    bars: bool = False


@dataclass(frozen=True)
class _Axes:
    """The map from data to pixels."""

    x_range: tuple[float, float]
    y_ticks: Sequence[float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)


def line_chart(
    title: str,
    x_label: str,
    lines: Sequence[Line],
    at: str = "round {}",
    legend: Sequence[Key] | None = None,
) -> Chart | None:
    """Draw the lines over one x axis; None where no line has a finite point.

    A value that is not finite breaks its line, and is named where the pointer stands; `at` says how the
    page names that place. The legend names every line unless another is given.
    """
    points = [point for line in lines for point in line.points]
    finite = [y for _, y in points if math.isfinite(y)]
    if not finite:
        return None
    xs = [x for x, _ in points]
    axes = _Axes(_widened(min(xs), max(xs)), _ticks(min(finite), max(finite)))
    series = [
        Series(
            line.label,
            line.colour,
            line.dash,
            _polyline(axes, line.points),
            [(axes.x(x), axes.y(y)) for x, y in line.points if math.isfinite(y)]
            if len(line.points) <= MARKED
            else (),
        )
        for line in lines
    ]
    values: dict[float, list[tuple[int, str]]] = {}
    for index, line in enumerate(lines):
        for x, y in line.points:
            values.setdefault(x, []).append((index, number(y)))
    stops = [Stop(axes.x(x), at.format(_tick(x)), values[x]) for x in sorted(values)]
    legend = legend or [Key(line.label, line.colour, line.dash) for line in lines]
    return Chart(title, x_label, _x_ticks(axes), _y_ticks(axes), series, stops, legend)


def bar_chart(title: str, rounds: Sequence[int], parts: Mapping[str, Sequence[float]]) -> Chart | None:
    """Stack the parts of every round on one another; None where there is nothing to stack.

    More rounds than MAX_BARS share bars, which then show their means.
    """
    step = math.ceil(len(rounds) / MAX_BARS) or 1
    groups = [slice(start, start + step) for start in range(0, len(rounds), step)]
    heights = {label: [fmean(values[group]) for group in groups] for label, values in parts.items()}
    tops = [sum(column) for column in zip(*heights.values(), strict=True)]
    if not tops or max(tops) <= 0:
        return None
    axes = _Axes((rounds[0] - 0.5, max(rounds[-1], rounds[0] + step - 1) + 0.5), _ticks(0.0, max(tops)))
    spans = [(rounds[group][0], rounds[group][-1]) for group in groups]
    width = min(0.86 * (axes.x(rounds[0] + step) - axes.x(rounds[0])), 60.0)
    centres = [axes.x((first + last) / 2) for first, last in spans]
    floor = [0.0] * len(groups)
    series = []
    for index, (label, values) in enumerate(heights.items()):
        tops = [low + value for low, value in zip(floor, values, strict=True)]
        path = "".join(
            f"M{x - width / 2:.1f} {axes.y(low)}h{width:.1f}V{axes.y(top)}h-{width:.1f}z"
            for x, low, top in zip(centres, floor, tops, strict=True)
            if axes.y(top) < axes.y(low)
        )
        series.append(Series(label, index, 0, path))
        floor = tops
    stops = [
        Stop(
            centres[at],
            f"round {first}" if first == last else f"mean of rounds {first} to {last}",
            [(index, number(values[at])) for index, values in enumerate(heights.values())],
        )
        for at, (first, last) in enumerate(spans)
    ]
    legend = [Key(label, index, 0) for index, label in enumerate(parts)]
    return Chart(title, "round", _x_ticks(axes), _y_ticks(axes), series, stops, legend, bars=True)


def _polyline(axes: _Axes, points: Sequence[tuple[float, float]]) -> str:
    path, pen = "", "M"
    for x, y in points:
        if math.isfinite(y):
            path += f"{pen}{axes.x(x)} {axes.y(y)}"
            pen = "L"
        else:
            pen = "M"
    return path


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a flat line, which floats cannot divide into steps
        pad = abs(low) / 10 or 0.5
        low, high = low - pad, high + pad
    return [float(tick) for tick in MaxNLocator(5, steps=STEPS, min_n_ticks=3).tick_values(low, high)]


def _x_ticks(axes: _Axes) -> list[tuple[float, str]]:
    low, high = axes.x_range
    ticks = MaxNLocator(8, steps=STEPS, integer=high - low >= 1).tick_values(low, high)
    return [(axes.x(float(tick)), _tick(float(tick))) for tick in ticks if low <= tick <= high]


def _y_ticks(axes: _Axes) -> list[tuple[float, str]]:
    return [(axes.y(tick), _tick(tick)) for tick in axes.y_ticks]


def _tick(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 or abs(value) >= 1e6 else f"{value:,.0f}"
