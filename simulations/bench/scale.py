"""What a hundred times as many clients cost: start-up, rounds and memory of one scenario at two sizes.

`python -m simulations.bench.scale`. The cohort is the same, so a larger federation should cost next to
nothing: clients that nobody asks should not exist.
"""

import json
import os
import sys
import time
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from server.errors import RunFailedError
from simulations.bench.clock import clocked, read_starts, warm_rounds

SCENARIO = Path(__file__).parents[1] / "configs" / "scale.toml"
SMALL, LARGE = 1000, 100_000
"""Clients of the two federations."""
WARM_UP = 3
"""Rounds of each run that are dropped."""
TICK = 0.25
"""Seconds between two looks at the memory."""

FEWEST_ROUNDS = WARM_UP + 2
"""A round ends where the next one starts, so the last one has no end."""


@dataclass(frozen=True)
class Cost:
    """What one run, or the median run, cost."""

    start_up: float
    """Seconds from the command to the start of the first round."""
    round: float
    """Median seconds of a warm round."""
    memory: float
    """Largest memory of all its processes together, in MB."""


def run_once(num_clients: int, num_rounds: int, *, in_process: bool) -> Cost:
    """Run the scenario with `num_clients` by the `polyfed` command in a process of its own."""
    with TemporaryDirectory(prefix="polyfed-bench-") as folder:
        clock = Path(folder, "clock")
        settings = {"num-clients": num_clients, "num-server-rounds": num_rounds, **clocked(clock)}
        command = [sys.executable, "-c", "from simulations.cli import main; main()", "run", str(SCENARIO)]
        command += [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        command += ["--run-dir", f"{folder}/run", *(["--in-process"] if in_process else [])]
        log = Path(folder, "log")
        memory, started = 0.0, time.time()
        with (
            log.open("w", encoding="utf-8") as file,
            psutil.Popen(command, stdout=file, stderr=file) as process,
        ):
            while process.poll() is None:
                memory = max(memory, memory_of(process))
                time.sleep(TICK)
        if process.returncode:
            raise RunFailedError(
                f"the run with {num_clients} clients failed: {log.read_text(encoding='utf-8')}"
            )
        starts = read_starts(clock)
    return Cost(starts[0] - started, median(warm_rounds(starts, WARM_UP)), memory)


def memory_of(process: psutil.Process) -> float:
    """Return the MB of a process and all its descendants; what n of them share counts 1/n in each."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for member in family:
        try:
            info = member.memory_full_info()
        except psutil.Error:  # it has just ended
            continue
        total += getattr(info, "pss", info.uss)  # only Linux knows the share
    return total / 1e6


def middle(costs: list[Cost]) -> Cost:
    """Return the median of each cost by itself."""
    return Cost(*(median(column) for column in zip(*map(astuple, costs), strict=True)))


def tabulate(costs: dict[int, list[Cost]]) -> Table:
    """Return the table of both federations and their ratios; `costs` is clients -> its runs."""
    num_runs = len(costs[SMALL])
    table = Table(caption=f"Medians of {num_runs} interleaved runs; {WARM_UP} rounds of each to warm up.")
    table.add_column("clients", justify="right")
    for heading in ("start-up, s", "a round, s", "peak memory, MB"):
        table.add_column(heading, justify="right")
    small, large = middle(costs[SMALL]), middle(costs[LARGE])
    for num_clients, cost in ((SMALL, small), (LARGE, large)):
        table.add_row(f"{num_clients:,}", f"{cost.start_up:.2f}", f"{cost.round:.4f}", f"{cost.memory:,.0f}")
    ratios = [after / before for before, after in zip(astuple(small), astuple(large), strict=True)]
    table.add_row("ratio", *(f"{ratio:.3f}" for ratio in ratios))
    return table


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each federation.")] = 3,
    rounds: Annotated[int, typer.Option(min=FEWEST_ROUNDS, help="Rounds of each run.")] = 20,
    in_process: Annotated[bool, typer.Option("--in-process", help="Without Flower's runtime.")] = False,
    output: Annotated[Path | None, typer.Option(help="JSON file for every number measured.")] = None,
) -> None:
    """Measure both federations in turn, print a table, and write what was measured."""
    console = Console()
    costs: dict[int, list[Cost]] = {SMALL: [], LARGE: []}
    for number in range(1, runs + 1):
        for num_clients, found in costs.items():
            with console.status(f"run {number} of {runs}: {num_clients:,} clients"):
                found.append(run_once(num_clients, rounds, in_process=in_process))
    console.print(tabulate(costs))
    if output:
        numbers = {str(num_clients): [asdict(cost) for cost in found] for num_clients, found in costs.items()}
        output.write_text(json.dumps({"costs": numbers, "cpus": os.cpu_count()}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
