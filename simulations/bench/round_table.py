"""The tables of seconds a round, for a terminal and for the docs."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from simulations.bench.systems import PLAIN, POLYFED, STOCK_APP, Measured
from simulations.bench.workloads import WORKLOADS
from simulations.runs.compare import NOTHING
from simulations.terminal import Table

Runs = dict[str, list[Measured]]
"""System -> its runs of one workload."""

HEADINGS = (
    "system",
    "seconds a round",
    "fastest to slowest run",
    "of polyfed",
    "of plain, two processes",
    "stock app takes",
    "start to first round, s",
)


def read_runs(found: Mapping[str, Any]) -> dict[str, Runs]:
    """Return the runs by workload from what the JSON file holds."""
    return {
        workload: {system: [Measured(**run) for run in runs] for system, runs in by_system["systems"].items()}
        for workload, by_system in found["workloads"].items()
    }


def seconds_a_round(runs: list[Measured]) -> list[float]:
    """Return the median round of each run, so that one run on a busy machine has one voice."""
    return [median(run.rounds) for run in runs]


def rows(by_system: Runs) -> list[list[str]]:
    """Return the cells under HEADINGS; a ratio to a system that was not measured is left out."""
    medians = {system: median(seconds_a_round(runs)) for system, runs in by_system.items()}
    found = []
    for system, runs in by_system.items():
        seconds, each = medians[system], seconds_a_round(runs)
        found.append(
            [
                system,
                f"{seconds:.3f}",
                f"{min(each):.3f} to {max(each):.3f}",
                _times(seconds, medians.get(POLYFED)),
                _times(seconds, medians.get(PLAIN)),
                _times(medians.get(STOCK_APP), seconds),
                f"{median(run.start_up for run in runs):.1f}",
            ]
        )
    return found


def title(workload: str) -> str:
    """Return what is trained."""
    of = WORKLOADS[workload]
    return (
        f"{workload}: {of.about}, {of.clients_per_round} of {of.num_clients:,} clients a round with "
        f"{of.examples} examples each, batches of {of.keys['batch-size']}"
    )


def caption(workload: str, by_system: Runs) -> str:
    """Return of how many runs and rounds the numbers are."""
    counts = sorted({len(runs) for runs in by_system.values()})
    num_rounds = sorted({len(run.rounds) for runs in by_system.values() for run in runs})
    warm_up = WORKLOADS[workload].warm_up
    return (
        f"Medians of {_span(num_rounds)} rounds in each of {_span(counts)} interleaved runs, after {warm_up} "
        f"round{'s' if warm_up > 1 else ''} to warm up."
    )


def tabulate(workload: str, by_system: Runs) -> Table:
    """Return the table for a terminal."""
    table = Table(title=title(workload), caption=caption(workload, by_system))
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows(by_system):
        table.add_row(*row)
    return table


def markdown(workload: str, by_system: Runs) -> str:
    """Return the table for the docs."""
    lines = [list(HEADINGS), ["---", *["---:"] * (len(HEADINGS) - 1)], *rows(by_system)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"**{title(workload)}.**\n\n{table}\n{caption(workload, by_system)}\n"


def _times(seconds: float | None, reference: float | None) -> str:
    return NOTHING if seconds is None or not reference else f"{seconds / reference:.2f}x"


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
