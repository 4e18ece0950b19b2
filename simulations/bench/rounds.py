"""What a round costs, side by side: polyfed, a stock Flower app, plain PyTorch.

`python -m simulations.bench.rounds`, or `make bench`. All train the workloads of
`simulations.bench.workloads` and note the start of every round in the same way. Systems run in turn, several
times each, so that whatever else the machine does befalls all of them.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console

from models.core.errors import unknown
from simulations.bench.measurements import FOLDER, machine_line, save
from simulations.bench.round_table import Runs, tabulate
from simulations.bench.systems import SYSTEMS
from simulations.bench.workloads import WORKLOADS
from simulations.terminal import make_console

FILE = "rounds.json"


def planned(workloads: Sequence[str], systems: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (workload, system) pairs to measure; of no workloads or systems those that are usual."""
    for name in workloads:
        if name not in WORKLOADS:
            raise unknown("workload", name, WORKLOADS)
    for name in systems:
        if name not in SYSTEMS:
            raise unknown("system", name, SYSTEMS)
    return [
        (workload, system)
        for workload in workloads or WORKLOADS
        for system in systems or SYSTEMS
        if SYSTEMS[system].trains(workload, asked=bool(systems))
    ]


def measure(
    pairs: Sequence[tuple[str, str]], num_runs: int, num_rounds: int, console: Console, output: Path
) -> dict[str, Runs]:
    """Run each pair `num_runs` times, in turn; `num_rounds` = 0 is as many rounds as a workload has.

    What was measured so far is in the file `output` after each turn, beside other workloads that it has.
    """
    earlier = json.loads(output.read_text(encoding="utf-8"))["workloads"] if output.exists() else {}
    measured: dict[str, Runs] = {workload: {} for workload, _ in pairs}
    for number in range(1, num_runs + 1):
        for workload, system in pairs:
            waiting = console.status(f"run {number} of {num_runs}: {workload}, {system}")
            with waiting, TemporaryDirectory(prefix="polyfed-bench-") as folder:
                rounds = num_rounds or WORKLOADS[workload].rounds
                run = SYSTEMS[system].measure(Path(folder), workload, rounds)
            measured[workload].setdefault(system, []).append(run)
        save(output, {"workloads": {**earlier, **_as_json(measured)}})
    return measured


def _as_json(measured: dict[str, Runs]) -> dict[str, Any]:
    return {
        workload: {
            "machine": machine_line(),
            "warm-up": WORKLOADS[workload].warm_up,
            "systems": {system: [asdict(run) for run in runs] for system, runs in by_system.items()},
        }
        for workload, by_system in measured.items()
    }


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each system on each workload.")] = 3,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of each run; 0 = the workload's own.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="A workload, such as W2; may be repeated.")] = None,
    system: Annotated[
        list[str] | None, typer.Option(help="A system by its name in the table; may be repeated.")
    ] = None,
    output: Annotated[Path, typer.Option(help="JSON file for every number measured.")] = FOLDER / FILE,
) -> None:
    """Measure, print a table a workload, and write what was measured."""
    pairs = planned(only or [], system or [])
    fewest = max(WORKLOADS[workload].warm_up for workload, _ in pairs) + 2
    if rounds and rounds < fewest:  # a round ends where the next one starts, so the last one has no end
        raise typer.BadParameter(f"--rounds must be 0 or at least {fewest}, got {rounds}")
    console, began = make_console(), time.monotonic()
    measured = measure(pairs, runs, rounds, console, output)
    for workload, by_system in measured.items():
        console.print(tabulate(workload, by_system))
    console.print(machine_line())
    console.print(f"took {(time.monotonic() - began) / 60:.1f} minutes; every number is in {output}")


if __name__ == "__main__":
    typer.run(main)
