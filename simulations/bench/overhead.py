"""What a round costs where there is little to compute: polyfed, a stock Flower app and a plain loop.

`python -m simulations.bench.overhead`. All train the workload of `simulations.bench.workload`, on as many
workers as there are CPUs (the plain loop on one), and note the start of every round in the same way.
polyfed runs with each worker's clients stacked, with one after the other, and so once more under FedProx:
that is what a local rule costs.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from models.core.config import RunConfig
from server.errors import RunFailedError
from server.provenance import versions
from server.run_schema import FLOWER_LOG
from simulations.bench.clock import ClockedFedProx, clocked, median_of_medians, read_starts, warm_rounds
from simulations.bench.plain import train_plainly
from simulations.bench.workload import CLIENTS_PER_ROUND, NUM_CLIENTS, RUN_CONFIG
from simulations.config import SimulationConfig, resolve
from simulations.runs.reader import read_run
from simulations.runtime.flower import run_on_flower
from simulations.scenario import defaults

STOCK = Path(__file__).parent / "stock"
WARM_UP = 5
"""Rounds of each run that are dropped: workers import torch in the first, and caches fill."""
FEWEST_ROUNDS = WARM_UP + 2
"""A round ends where the next one starts, so the last one has no end."""

Runs = dict[str, list[list[float]]]
"""System -> for each run, the seconds of its warm rounds."""


def run_polyfed(folder: Path, num_rounds: int, engine: str = "stacked", fedprox: bool = False) -> None:
    """Run the workload on polyfed under Flower's runtime; its clock is `folder / "clock"`."""
    run_config: RunConfig = {
        **defaults(),
        **RUN_CONFIG,
        **clocked(folder / "clock", *((ClockedFedProx, ", proximal_mu = 0.1") if fedprox else ())),
        "num-server-rounds": num_rounds,
        "engine": engine,
        "run-dir": str(folder),
    }
    outcome = run_on_flower(run_config, resolve(SimulationConfig()))
    if outcome.error:
        raise RunFailedError(f"polyfed: {outcome.error}")
    full = [r for r in read_run(folder).rounds if len(r.clients) == CLIENTS_PER_ROUND]
    if len(full) != num_rounds:
        raise RunFailedError(f"polyfed: not all of the {CLIENTS_PER_ROUND} clients answered in every round")


def run_stock(folder: Path, num_rounds: int) -> None:
    """Run the workload on the stock app under Flower's runtime; its clock is `folder / "clock"`."""
    run_config: RunConfig = {
        "num-server-rounds": num_rounds,
        "num-clients": NUM_CLIENTS,
        "fraction-train": CLIENTS_PER_ROUND / NUM_CLIENTS,
        "threads": 1,
        "run-dir": str(folder),
    }
    simulation = replace(resolve(SimulationConfig()), num_nodes=NUM_CLIENTS)
    outcome = run_on_flower(run_config, simulation, app=STOCK)
    if outcome.error:
        raise RunFailedError(f"the stock app: {outcome.error}")
    full = f"aggregate_train: Received {CLIENTS_PER_ROUND} results and 0 failures"
    if (folder / FLOWER_LOG).read_text(encoding="utf-8").count(full) != num_rounds:
        raise RunFailedError(
            f"the stock app: not all of the {CLIENTS_PER_ROUND} clients answered in every round"
        )


def run_plain(folder: Path, num_rounds: int) -> None:
    """Run the workload as a plain loop; its clock is `folder / "clock"`."""
    train_plainly(folder / "clock", num_rounds)


SYSTEMS: dict[str, Callable[[Path, int], None]] = {
    "polyfed": run_polyfed,
    "polyfed, engine = loop": partial(run_polyfed, engine="loop"),
    "polyfed, engine = loop, FedProx": partial(run_polyfed, engine="loop", fedprox=True),
    "stock Flower app": run_stock,
    "plain loop": run_plain,
}


def measure(num_runs: int, num_rounds: int, console: Console) -> Runs:
    """Run the systems in turn, so that whatever else the machine does befalls all of them."""
    measured: Runs = {name: [] for name in SYSTEMS}
    for number in range(1, num_runs + 1):
        for name, run in SYSTEMS.items():
            waiting = console.status(f"run {number} of {num_runs}: {name}")
            with waiting, TemporaryDirectory(prefix="polyfed-bench-") as folder:
                run(Path(folder), num_rounds)
                measured[name].append(warm_rounds(read_starts(Path(folder, "clock")), WARM_UP))
    return measured


def tabulate(measured: Runs) -> Table:
    """Return the table of seconds a round."""
    reference = median_of_medians(measured["polyfed"])
    num_runs, num_rounds = len(measured["polyfed"]), len(measured["polyfed"][0])
    table = Table(
        title=f"{CLIENTS_PER_ROUND} of {NUM_CLIENTS:,} clients a round, {os.cpu_count()} CPUs",
        caption=f"Medians of {num_rounds} rounds in each of {num_runs} interleaved runs, "
        f"after {WARM_UP} rounds to warm up.",
    )
    table.add_column("")
    for heading in ("seconds a round", "fastest to slowest run", "times polyfed"):
        table.add_column(heading, justify="right")
    for name, runs in measured.items():
        medians = [median(rounds) for rounds in runs]
        seconds = median(medians)
        between = f"{min(medians):.3f} to {max(medians):.3f}"
        table.add_row(name, f"{seconds:.3f}", between, f"{seconds / reference:.2f}")
    return table


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each system.")] = 3,
    rounds: Annotated[int, typer.Option(min=FEWEST_ROUNDS, help="Rounds of each run.")] = 30,
    output: Annotated[Path | None, typer.Option(help="JSON file for every number measured.")] = None,
) -> None:
    """Measure, print a table, and write what was measured."""
    console = Console()
    measured = measure(runs, rounds, console)
    console.print(tabulate(measured))
    if output:
        numbers = {
            "seconds": measured,
            "seconds-a-round": {name: median_of_medians(found) for name, found in measured.items()},
            "warm-up": WARM_UP,
            "cpus": os.cpu_count(),
            "versions": versions(),
        }
        output.write_text(json.dumps(numbers, indent=1), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
