"""The curves of one run, or of several over one another: what was reached, and at what cost."""

from collections.abc import Sequence
from itertools import accumulate

from server.run_schema import Traffic
from simulations.report.charts import Chart, Key, Line, line_chart
from simulations.report.client_distribution import client_distributions
from simulations.runs.compare import NO_METRIC
from simulations.runs.record import Run
from strategies.rule import PERSONAL

SOURCES = {"central": "held-out examples", "evaluate": "clients' own examples", "train": "training"}
"""Where a round's metrics were measured."""
MOVED, ON_THE_WIRE = "MB to and from clients", "MB between server and nodes"
MOST_CLIENTS = 8
"""Clients that a chart has a line each for: as many as there are colours."""


def learning_curves(runs: Sequence[Run]) -> list[Chart]:
    """One chart a metric, the runs' own metric first; colours tell runs apart, or else the sources."""
    found = dict.fromkeys(
        name
        for source in SOURCES
        for run in runs
        for line in run.rounds
        for name in getattr(line, source)
        if name != NO_METRIC
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
    """The first run's metric over what had been spent by then: bytes both ways, seconds, simulated seconds.

    The bytes are those of clients where every run has counted them, else those of the nodes' messages.
    """
    metric = runs[0].metric
    of_clients = all(run.traffic.clients_down is not None for run in runs)
    sent, spent, simulated = [], [], []
    for index, run in enumerate(runs):
        label = run.name if len(runs) > 1 else SOURCES["central"]
        total_mb = accumulate(_moved(line.bytes, of_clients) / 1e6 for line in run.rounds)
        total_seconds = accumulate(line.total_seconds for line in run.rounds)
        measured = [
            (mb, seconds, line.simulated_seconds or 0.0, line.central[metric])
            for mb, seconds, line in zip(total_mb, total_seconds, run.rounds, strict=True)
            if metric in line.central
        ]
        if len(measured) > 1:
            sent.append(Line(label, index, 0, [(mb, value) for mb, *_, value in measured]))
            spent.append(Line(label, index, 0, [(seconds, value) for _, seconds, *_, value in measured]))
            if run.simulates_time:
                simulated.append(Line(label, index, 0, [(at, value) for *_, at, value in measured]))
    return [
        chart
        for chart in (
            line_chart(f"{metric} by traffic", MOVED if of_clients else ON_THE_WIRE, sent, "{} MB"),
            line_chart(f"{metric} by time", "seconds", spent, "{} s"),
            line_chart(f"{metric} by simulated time", "simulated seconds", simulated, "{} simulated s"),
        )
        if chart
    ]


def client_curves(run: Run) -> list[Chart]:
    """The run's metric on each client's own examples, by the clients' names; [] where they are many."""
    drawn = []
    for metric in (run.metric, PERSONAL + run.metric):
        measured = [(float(line.server_round), line.client_metrics.get(metric, {})) for line in run.rounds]
        clients = sorted({client for _, values in measured for client in values})
        lines = [
            Line(
                run.label(client),
                at,
                0,
                [(where, each[client]) for where, each in measured if client in each],
            )
            for at, client in enumerate(clients[:MOST_CLIENTS])
        ]
        if 1 < len(clients) <= MOST_CLIENTS:
            drawn.append(line_chart(f"{metric} by client, on its own examples", "round", lines))
    return [chart for chart in drawn if chart]


def distribution_curves(run: Run) -> Chart | None:
    """The metric over the clients, on their own examples when they last evaluated; None where none did."""
    lines = [
        Line(name, index, 0, [(5.0 * step, distribution.at(step / 20)) for step in range(21)])
        for index, (name, distribution) in enumerate(client_distributions(run).items())
    ]
    return line_chart("From the worst client to the best", "% of the clients", lines, "{} % of the clients")


def _moved(traffic: Traffic, of_clients: bool) -> int:
    if of_clients:
        return (traffic.clients_down or 0) + (traffic.clients_up or 0)
    return traffic.down + traffic.up
