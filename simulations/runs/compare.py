"""Runs side by side: how they were set up, what they reached and cost, and where their configs differ."""

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from simulations.report.client_distribution import ClientDistribution, distributions_of
from simulations.runs.origins import origin_lines, origin_rows
from simulations.runs.record import Run
from simulations.terminal import Table

NOTHING = "–"
METRIC_COLUMNS = ("final", "best", "clients' own examples", "training")
"""Of what a metric is: the last model and the best one on test examples, and the last on the others."""
NO_METRIC = "num-examples"
"""What stands among the metrics of a round and is none."""
NOT_COMPARED = ("run-dir", "resume")
"""Config keys that say where a run lies and how it began, not what it is."""


def print_comparison(runs: Sequence[Run], console: Console, *, all_metrics: bool = False) -> None:
    """Print the runs as columns: a summary, what differs between their configs, and where they come from."""
    names = [run.name for run in runs]
    console.print(_table("Runs", names, _rows([summary(run) for run in runs]) | client_rows(runs)))
    if all_metrics:
        console.print(_table("All metrics", names, metric_rows(runs)))
    print_endings(runs, console)
    if len(runs) == 1:
        return
    differing = differences(runs)
    if differing:
        console.print(_table("Config where it differs", names, differing))
        if origins := origin_rows(runs):
            console.print(_table("Where they come from, where that differs", names, origins))
    else:
        console.print("The configs do not differ.")
    print_origins(runs, console)


def print_origins(runs: Sequence[Run], console: Console) -> None:
    """Print whether runs of one config ended in the same weights, and if not, what may be the reason."""
    for line in origin_lines(runs):
        console.print(Text(line), soft_wrap=True)


def print_endings(runs: Sequence[Run], console: Console) -> None:
    """Print what ended otherwise than it should have."""
    for run in runs:
        if run.status == "failed" and run.result:
            console.print(Text(f"{run.name} failed: {run.result.reason}", style="red"))
        if run.half_written:
            console.print(Text(f"{run.name}: metrics.jsonl ends inside a line, which is left out"))


def summary(run: Run) -> dict[str, str]:
    """Return what a reader compares first, ready to print."""
    config, result = run.config, run.result
    metric = run.metric
    best = run.best.metrics.get(metric) if run.best else None
    chosen = run.chosen.metrics.get(metric) if run.chosen and run.tested else None
    last = number(run.final[metric]) if metric in run.final else NOTHING
    trained = [len(line.clients) for line in run.rounds if line.clients]
    return {
        "status": run.status,
        "task / dataset": f"{config['task']} / {config['dataset']}",
        "clients": f"{config['num-clients']}{_a_round(trained)}",
        "strategy": _with_options(config["strategy"], config["strategy-options"]),
        "rounds": f"{run.last_round} of {config['num-server-rounds']}",
        "metric": metric or NOTHING,
        "best": NOTHING
        if best is None or not run.best
        else f"{number(best)} (round {run.best.server_round})",
        "final": last if run.ended_with_metrics or last == NOTHING else f"{last} (so far)",
        **({} if chosen is None else {"best, validation": number(chosen)}),
        "seconds": number(run.seconds),
        **({} if run.simulated_seconds is None else {"simulated seconds": number(run.simulated_seconds)}),
        "MB to / from clients": ways(run.traffic.clients_down, run.traffic.clients_up),
        "MB to / from nodes": ways(run.traffic.down, run.traffic.up),
        "client failures": str(len(run.failures)),
        "weights": (result.weights_sha256[:12] if result else "") or NOTHING,
    }


def metric_rows(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return every metric of every run, ready to print: final, best, and the last by other examples."""
    tables = [metric_table(run) for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = {
        f"{name}, {column}": [table[name][at] if name in table else None for table in tables]
        for name in names
        for at, column in enumerate(METRIC_COLUMNS)
    }
    return {
        what: [NOTHING if value is None else number(value) for value in row]
        for what, row in rows.items()
        if any(value is not None for value in row)
    }


def metric_table(run: Run) -> dict[str, list[float | None]]:
    """Return metric -> its values by METRIC_COLUMNS; None for what was not measured or not finite."""
    last_on_clients = next((line.evaluate for line in reversed(run.rounds) if line.evaluate), {})
    last_in_training = next((line.train for line in reversed(run.rounds) if line.train), {})
    best = run.best.metrics if run.best else {}
    columns: list[Mapping[str, float | None]] = [run.final, best, last_on_clients, last_in_training]
    names = dict.fromkeys(name for column in columns for name in column if name != NO_METRIC)
    return {name: [column.get(name) for column in columns] for name in names}


def client_rows(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return how the runs' clients fared on their own examples, ready to print; {} where none evaluated."""
    shown: dict[str, Callable[[ClientDistribution], float]] = {
        "mean of clients": lambda distribution: distribution.mean,
        "worst client": lambda distribution: distribution.at(0),
        "worst tenth": lambda distribution: distribution.at(0.1),
    }
    return {
        f"{name}, {what}": [number(of(distribution)) if distribution else NOTHING for distribution in row]
        for name, row in distributions_of(runs).items()
        for what, of in shown.items()
    }


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the config keys whose values differ between the runs, with one value a run."""
    values = {key: [run.config.get(key) for run in runs] for key in differing_keys(runs)}
    return {key: [NOTHING if value is None else show(value) for value in row] for key, row in values.items()}


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Return the config keys whose values differ between the runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config if key not in NOT_COMPARED)
    return [key for key in keys if any(run.config.get(key) != runs[0].config.get(key) for run in runs)]


def number(value: float) -> str:
    """Print a measurement with the digits that a reader can use."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.3e}"
    return f"{value:.4f}" if size < 10 else f"{value:,.2f}" if size < 1000 else f"{value:,.0f}"


def megabytes(num_bytes: int) -> str:
    """Print a number of bytes in MB, 1 MB being 1,000,000 bytes."""
    size = num_bytes / 1e6
    return f"{size:,.2f}" if size < 100 else f"{size:,.0f}"


def show(value: bool | int | float | str) -> str:
    """Print a config value; empty text as two quotes, so that it is seen."""
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


def ways(down: int | None, up: int | None) -> str:
    """Print bytes both ways in MB."""
    return NOTHING if down is None or up is None else f"{megabytes(down)} / {megabytes(up)}"


def _a_round(trained: Sequence[int]) -> str:
    if not trained:
        return ""
    low, high = min(trained), max(trained)
    return f", {low} a round" if low == high else f", {low} to {high} a round"


def _with_options(strategy: object, options: object) -> str:
    return f"{strategy} ({options})" if options else str(strategy)


def _rows(summaries: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    longest = max(summaries, key=len)
    return {key: [one.get(key, NOTHING) for one in summaries] for key in longest}


def _table(title: str, names: Sequence[str], rows: dict[str, list[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for key, values in rows.items():
        table.add_row(key, *map(Text, values))  # Text: a "[" in a name is no markup
    return table
