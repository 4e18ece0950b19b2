"""One self-contained HTML page about one run, or about several with their curves overlaid."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from models.config import RunConfig, TaskConfig, key_of
from models.data.picture import partition_figure
from models.errors import UserError
from server.config import ServerConfig
from simulations import charts
from simulations.charts import Chart, Key, Line, bar_chart, line_chart
from simulations.compare import NOT_COMPARED, differences, megabytes, number, show, summary
from simulations.run_folder import Partition, Run, read_runs

SOURCES = {"central": "held-out rows", "evaluate": "clients' own rows", "train": "training"}
"""Where a round's metrics were measured."""
NOT_PLOTTED = "num-examples"
FAILURES_SHOWN = 200


@dataclass(frozen=True)
class RunView:
    """What the page shows of one run beside the curves."""

    run: Run
    summary: Mapping[str, str]
    metrics: Mapping[str, Sequence[float | None]]
    """Metric -> final, best, last on the clients' own rows, last in training."""
    time: Chart | None
    phases: Mapping[str, float]
    """Phase -> seconds over the whole run."""
    traffic: Chart | None
    partition: str | None
    """A data URI, as are the figures."""
    figures: Mapping[str, str]
    changed: Mapping[str, str]
    """Config key -> its default, for the keys that have another value."""


def write_report(runs: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page and return its path: `output`, else report.html in the one run's folder, else here.

    Raises UserError for a folder that is not a run, a broken file in one, or a page that cannot be written.
    """
    read = read_runs(runs)
    page = output or (read[0].path if len(read) == 1 else Path.cwd()) / "report.html"
    text = _environment().get_template("report.html.j2").render(
        views=[_view(run) for run in read],
        curves=_learning_curves(read),
        costs=_cost_curves(read),
        differences=differences(read),
    )
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"the report cannot be written to {page} ({error}): name a file with --output") from error
    return page


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("simulations", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, megabytes=megabytes, show=show, duration=_duration)
    environment.globals.update(sources=SOURCES, failures_shown=FAILURES_SHOWN, chart=charts)
    return environment


def _learning_curves(runs: Sequence[Run]) -> list[Chart]:
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


def _cost_curves(runs: Sequence[Run]) -> list[Chart]:
    """The first run's metric over what had been spent by then: bytes both ways, and seconds."""
    metric = runs[0].metric
    sent, spent = [], []
    for index, run in enumerate(runs):
        label = run.name if len(runs) > 1 else SOURCES["central"]
        total_mb = accumulate((line.bytes_down + line.bytes_up) / 1e6 for line in run.rounds)
        total_seconds = accumulate(line.seconds.get("total", 0.0) for line in run.rounds)
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


def _view(run: Run) -> RunView:
    time = _time_by_phase(run)
    numbers = [line.server_round for line in run.rounds]
    traffic = {
        "down": [line.bytes_down / 1e6 for line in run.rounds],
        "up": [line.bytes_up / 1e6 for line in run.rounds],
    }
    return RunView(
        run=run,
        summary=summary(run),
        metrics=_metric_table(run),
        time=bar_chart("Seconds a round", numbers, time),
        phases={phase: sum(seconds) for phase, seconds in time.items()},
        traffic=bar_chart("MB a round", numbers, traffic),
        partition=_partition_picture(run.partition) if run.partition else None,
        figures={name: _data_uri(svg) for name, svg in run.figures.items()},
        changed=_changed(run.config),
    )


def _changed(config: RunConfig) -> dict[str, str]:
    """Return the default of every key of the task's and the server's that has another value."""
    defaults = {key_of(field.name): field.default for cls in (TaskConfig, ServerConfig) for field in fields(cls)}
    changed = (key for key, value in config.items() if value != defaults.get(key, value))
    return {key: show(defaults[key]) for key in changed if key not in NOT_COMPARED}


def _metric_table(run: Run) -> dict[str, list[float | None]]:
    """Return metric -> final, best, last on the clients' own rows, last in training."""
    best = run.result.best if run.result else {}
    last = {
        source: next((m for line in reversed(run.rounds) if (m := getattr(line, source))), {})
        for source in ("evaluate", "train")
    }
    columns: list[Mapping[str, float]] = [run.final, best, last["evaluate"], last["train"]]
    names = dict.fromkeys(name for column in columns for name in column if name != NOT_PLOTTED)
    return {name: [column.get(name) for column in columns] for name in names}


def _time_by_phase(run: Run) -> dict[str, list[float]]:
    """Return phase -> seconds a round; "other" is what no phase claims of a round's total."""
    fullest_first = sorted(run.rounds, key=lambda line: -len(line.seconds))  # round 0 only evaluates
    phases = dict.fromkeys(name for line in fullest_first for name in line.seconds if name != "total")
    time = {phase: [line.seconds.get(phase, 0.0) for line in run.rounds] for phase in phases}
    claimed = [sum(column) for column in zip(*time.values(), strict=True)] or [0.0] * len(run.rounds)
    totals = [line.seconds.get("total", 0.0) for line in run.rounds]
    time["other"] = [max(total - part, 0.0) for total, part in zip(totals, claimed, strict=True)]
    return time


def _partition_picture(partition: Partition) -> str:
    figure = partition_figure(partition.counts, partition.classes, partition.num_clients)
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _data_uri(svg.getvalue())


def _data_uri(svg: bytes) -> str:
    """An image of its own, so that the ids of two SVGs never meet and nothing in one can run or load."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
