"""The curves of one run, or of several over one another: what was reached, and at what cost."""

from collections.abc import Sequence
from itertools import accumulate

from simulations.report.charts import Chart, Key, Line, line_chart
from simulations.report.client_distribution import client_distributions
from simulations.runs.record import Run

SOURCES = {"central": "held-out examples", "evaluate": "clients' own examples", "train": "training"}
"""Where a round's metrics were measured."""
NOT_PLOTTED = "num-examples"


def learning_curves(runs: Sequence[Run]) -> list[Chart]:
    """One chart a metric, the runs' own metric first; colours tell runs apart, or else the sources."""
    found = dict.fromkeys(
        name
        for source in SOURCES
        for run in runs
        for line in run.rounds
        for name in getattr(line, source)
        if name != NOT_PLOTTED
    )
    drawn = []
    for name in sorted(found, key=lambda name: name != runs[0].metric):
        lines: list[Line] = []
        for index, run in enumerate(runs):
            for dash, (source, where) in enumerate(SOURCES.items()):
                measured = [(line.server_round, getattr(line, source)) for line in run.rounds]
                points = [(float(at), metrics[name]) for at, metrics in measured if name in metrics]
                label, colour = (where, dash) if len(runs) == 1 else (f"{run.name}, {where}", index)
                if points:
                    lines.append(Line(label, colour, dash, points))
        drawn.append(line_chart(name, "round", lines, legend=_two_part_legend(runs, lines)))
    return [chart for chart in drawn if chart]


def _two_part_legend(runs: Sequence[Run], lines: Sequence[Line]) -> list[Key] | None:
    """Name runs by colour and sources by dash, once each, rather than every pair of them."""
    if len(runs) == 1:
        return None
    colours, dashes = ({getattr(line, part) for line in lines} for part in ("colour", "dash"))
    named = [Key(run.name, index, 0) for index, run in enumerate(runs) if index in colours]
    return named + [Key(where, None, dash) for dash, where in enumerate(SOURCES.values()) if dash in dashes]


def cost_curves(runs: Sequence[Run]) -> list[Chart]:
    """The first run's metric over what had been spent by then: bytes both ways, and seconds."""
    metric = runs[0].metric
    sent, spent = [], []
    for index, run in enumerate(runs):
        label = run.name if len(runs) > 1 else SOURCES["central"]
        total_mb = accumulate((line.bytes.down + line.bytes.up) / 1e6 for line in run.rounds)
        total_seconds = accumulate(line.total_seconds for line in run.rounds)
        measured = [
            (mb, seconds, line.central[metric])
            for mb, seconds, line in zip(total_mb, total_seconds, run.rounds, strict=True)
            if metric in line.central
        ]
        if len(measured) > 1:
            sent.append(Line(label, index, 0, [(mb, value) for mb, _, value in measured]))
            spent.append(Line(label, index, 0, [(seconds, value) for _, seconds, value in measured]))
    return [
        chart
        for chart in (
            line_chart(f"{metric} by traffic", "MB sent, down and up", sent, "{} MB"),
            line_chart(f"{metric} by time", "seconds", spent, "{} s"),
        )
        if chart
    ]


def distribution_curves(run: Run) -> Chart | None:
    """The metric over the clients, on their own examples when they last evaluated; None where none did."""
    lines = [
        Line(name, index, 0, [(5.0 * step, distribution.at(step / 20)) for step in range(21)])
        for index, (name, distribution) in enumerate(client_distributions(run).items())
    ]
    return line_chart("From the worst client to the best", "% of the clients", lines, "{} % of the clients")
