"""One self-contained HTML page about one run, or about several with their curves overlaid."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from models.core.config import RunConfig
from models.core.errors import UserError
from server.run_schema import BEST_MODEL, LAST_MODEL, LEAVES, REPORT, ExplanationSummary
from simulations.explain.summary import cells_of, columns, goes_by, legend
from simulations.report import charts
from simulations.report.charts import Chart, bar_chart
from simulations.report.client_distribution import ClientDistribution, client_distributions
from simulations.report.clients import MOST_ROWS, ClientRow, client_table
from simulations.report.curves import (
    SOURCES,
    client_curves,
    cost_curves,
    distribution_curves,
    learning_curves,
)
from simulations.report.holdings import holdings_svg
from simulations.runs.arms import CAPTION, arms_of, have_seeds, rows
from simulations.runs.compare import (
    NOT_COMPARED,
    client_rows,
    differences,
    megabytes,
    metric_table,
    number,
    show,
    summary,
    ways,
)
from simulations.runs.origins import describe_optimizer, origin_lines, origin_rows
from simulations.runs.reader import read_runs
from simulations.runs.record import Run
from simulations.scenario import defaults

FAILURES_SHOWN = 200


@dataclass(frozen=True)
class RunView:
    """What the page shows of one run beside the curves."""

    run: Run
    summary: Mapping[str, str]
    metrics: Mapping[str, Sequence[float | None]]
    """Metric -> final, best, last on the clients' own examples, last in training."""
    clients: Sequence[ClientRow]
    client_curves: Sequence[Chart]
    client_distributions: Mapping[str, ClientDistribution]
    distribution_curves: Chart | None
    time: Chart | None
    phases: Mapping[str, float]
    """Phase -> seconds over the whole run."""
    traffic: Sequence[Chart]
    """What clients moved, and what the messages of nodes held."""
    partition: str | None
    """A data URI, as are the figures."""
    figures: Mapping[str, str]
    explanations: Mapping[str, str]
    """Method -> a data URI."""
    explained: Sequence[Sequence[str]]
    """Headings, and a row a method, of what was found; [] where nobody has asked."""
    explained_legend: Sequence[str]
    config: Mapping[str, str]
    """Config key -> its value; of what was left to the task, what the task chose."""
    changed: Mapping[str, str]
    """Config key -> its default, for the keys that have another value."""


def write_report(runs: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page and return its path: `output`, else report.html in the one run's folder, else here.

    Raises UserError for a folder that is not a run, a broken file in one, or a page that cannot be written.
    """
    read = read_runs(runs)
    page = output or (read[0].path if len(read) == 1 else Path.cwd()) / REPORT
    text = template().render(
        views=[_view(run) for run in read],
        curves=learning_curves(read),
        costs=cost_curves(read),
        client_rows=client_rows(read),
        differences=differences(read),
        origins=origin_rows(read),
        origin_lines=origin_lines(read),
        arms=rows(arms_of(read)) if have_seeds(read) else [],
        arms_caption=CAPTION,
    )
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the report to {page} ({error}): give another file") from error
    return page


@cache
def template() -> Template:
    """Return what renders the page; a process that writes several compiles it once."""
    environment = Environment(
        loader=PackageLoader("simulations", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, megabytes=megabytes, show=show, duration=_duration, optimizer=describe_optimizer
    )
    environment.globals.update(
        sources=SOURCES,
        failures_shown=FAILURES_SHOWN,
        clients_shown=MOST_ROWS,
        chart=charts,
        ways=ways,
        leaves=LEAVES,
    )
    return environment.get_template("report.html.j2")


def _view(run: Run) -> RunView:
    time = _time_by_phase(run)
    numbers = [line.server_round for line in run.rounds]
    of_clients = {
        "down": [(line.bytes.clients_down or 0) / 1e6 for line in run.rounds],
        "up": [(line.bytes.clients_up or 0) / 1e6 for line in run.rounds],
    }
    of_nodes = {
        "down": [line.bytes.down / 1e6 for line in run.rounds],
        "up": [line.bytes.up / 1e6 for line in run.rounds],
    }
    traffic = [
        bar_chart("MB a round, to and from clients", numbers, of_clients),
        bar_chart("MB a round, to and from nodes", numbers, of_nodes),
    ]
    return RunView(
        run=run,
        summary=summary(run),
        metrics=metric_table(run),
        clients=client_table(run),
        client_curves=client_curves(run),
        client_distributions=client_distributions(run),
        distribution_curves=distribution_curves(run),
        time=bar_chart("Seconds a round", numbers, time),
        phases={phase: sum(seconds) for phase, seconds in time.items()},
        traffic=[chart for chart in traffic if chart],
        partition=_data_uri(holdings_svg(run.partition).encode()) if run.partition else None,
        figures={name: _data_uri(svg) for name, svg in run.figures.items()},
        explanations={method: _data_uri(each.png, "png") for method, each in run.explanations.items()},
        explained=_explained([each.summary for each in run.explanations.values()]),
        explained_legend=[*_legend([each.summary for each in run.explanations.values()]), *_stale(run)],
        config=_config(run),
        changed=_changed(run.config),
    )


def _config(run: Run) -> dict[str, str]:
    """Return what the page says of each config key."""
    shown = {key: show(value) for key, value in run.config.items()}
    optimizers = run.result.used.optimizers if run.result and run.result.used else ()
    if optimizers:
        chosen = {
            "optimizer": [each.optimizer for each in optimizers],
            "learning-rate": [f"{each.learning_rate:g}" for each in optimizers],
        }
        left = {key: values for key, values in chosen.items() if not run.config[key]}
        shown |= {key: f"{', '.join(dict.fromkeys(values))} (the task's own)" for key, values in left.items()}
    return shown


def _changed(config: RunConfig) -> dict[str, str]:
    """Return the default of every key that has another value."""
    declared = defaults()
    changed = (key for key, default in declared.items() if config[key] != default)
    return {key: show(declared[key]) for key in changed if key not in NOT_COMPARED}


def _time_by_phase(run: Run) -> dict[str, list[float]]:
    """Return phase -> seconds a round; "other" is what no phase claims of a round's total."""
    fullest_first = sorted(run.rounds, key=lambda line: -len(line.seconds))  # round 0 only evaluates
    phases = dict.fromkeys(name for line in fullest_first for name in line.seconds if name != "total")
    time = {phase: [line.seconds.get(phase, 0.0) for line in run.rounds] for phase in phases}
    claimed = [sum(column) for column in zip(*time.values(), strict=True)] or [0.0] * len(run.rounds)
    totals = [line.total_seconds for line in run.rounds]
    time["other"] = [max(total - part, 0.0) for total, part in zip(totals, claimed, strict=True)]
    return time


def _explained(summaries: Sequence[ExplanationSummary]) -> list[list[str]]:
    """Return headings, and a row a method; [] where there is none."""
    names = columns(summaries)
    rows = [["model", *names]]
    for each in summaries:
        cells = cells_of(each)
        rows.append([each.model, *(cells.get(name, "") for name in names)])
    return rows if summaries else []


def _legend(summaries: Sequence[ExplanationSummary]) -> list[str]:
    return [*legend(summaries), *goes_by(summaries)]


def _stale(run: Run) -> list[str]:
    """Return a line on each explanation of a model that the run has no more, such as before it went on."""
    if not run.explanations:
        return []
    from models.state import weights_sha256  # which imports torch
    from server.weights_file import read_weights

    held = set()
    for path in (run.path / BEST_MODEL, run.path / LAST_MODEL):
        if path.exists():
            try:
                held.add(weights_sha256(read_weights(path)))
            except UserError:  # nobody knows whether it is of this one
                return []
    return [
        f"{method} is of a model that the run has no more ({each.summary.model}): explain it again"
        for method, each in run.explanations.items()
        if held and each.summary.weights_sha256 not in held
    ]


def _data_uri(image: bytes, kind: str = "svg+xml") -> str:
    """An image of its own, so that the ids of two SVGs never meet and nothing in one can run or load."""
    return f"data:image/{kind};base64," + base64.b64encode(image).decode("ascii")


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
