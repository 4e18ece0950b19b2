"""What a thousand times as many clients cost: start-up, rounds and memory of one scenario at two sizes.

`python -m simulations.bench.scale`, or `make scale`. The cohort is the same, so a larger federation should
cost next to nothing: clients that nobody asks should not exist.
"""

from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from simulations.bench.clock import warm_rounds
from simulations.bench.command import DEFAULT, polyfed_run
from simulations.bench.measurements import FOLDER, machine_line, save
from simulations.terminal import Table, make_console

SCENARIO = Path(__file__).parents[1] / "configs" / "scale.toml"
SMALL, LARGE = 1000, 1_000_000
"""Clients of the two federations."""
CLIENTS_PER_ROUND = 100
WARM_UP = 3
"""Rounds of each run that are dropped."""
FEWEST_ROUNDS = WARM_UP + 2
"""A round ends where the next one starts, so the last one has no end."""
FILE = "scale.json"


@dataclass(frozen=True)
class Cost:
    """What one run, or the median run, cost."""

    start_up: float
    """Seconds from the command to the start of the first round."""
    round: float
    """Median seconds of a warm round."""
    memory: float
    """Largest memory of all its processes together, in MB."""
    driver: float
    """Largest memory of the command's own process, in MB."""


def run_once(num_clients: int, num_rounds: int, *, runtime: str = DEFAULT) -> Cost:
    """Run the scenario with `num_clients` by the `polyfed` command in a process of its own."""
    settings = {
        "num-clients": num_clients,
        "clients-per-round": CLIENTS_PER_ROUND,
        "num-server-rounds": num_rounds,
    }
    with TemporaryDirectory(prefix="polyfed-bench-") as folder:
        took = polyfed_run(SCENARIO, Path(folder), settings, runtime=runtime, watch=True)
    return Cost(took.starts[0], median(warm_rounds(took.starts, WARM_UP)), took.memory, took.driver)


def middle(costs: list[Cost]) -> Cost:
    """Return the median of each cost by itself."""
    return Cost(*(median(column) for column in zip(*map(astuple, costs), strict=True)))


def tabulate(costs: dict[int, list[Cost]]) -> Table:
    """Return the table of both federations and their ratios; `costs` is clients -> its runs."""
    num_runs = len(costs[SMALL])
    table = Table(caption=f"Medians of {num_runs} interleaved runs; {WARM_UP} rounds of each to warm up.")
    table.add_column("clients", justify="right")
    for heading in ("start-up, s", "a round, s", "peak memory, MB", "of the driver, MB"):
        table.add_column(heading, justify="right")
    small, large = middle(costs[SMALL]), middle(costs[LARGE])
    for num_clients, cost in ((SMALL, small), (LARGE, large)):
        megabytes = (f"{cost.memory:,.0f}", f"{cost.driver:,.0f}")
        table.add_row(f"{num_clients:,}", f"{cost.start_up:.2f}", f"{cost.round:.4f}", *megabytes)
    ratios = [after / before for before, after in zip(astuple(small), astuple(large), strict=True)]
    table.add_row("ratio", *(f"{ratio:.3f}" for ratio in ratios))
    return table


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each federation.")] = 3,
    rounds: Annotated[int, typer.Option(min=FEWEST_ROUNDS, help="Rounds of each run.")] = 20,
    in_process: Annotated[bool, typer.Option("--in-process", help="Without other processes.")] = False,
    output: Annotated[Path, typer.Option(help="JSON file for every number measured.")] = FOLDER / FILE,
) -> None:
    """Measure both federations in turn, print a table, and write what was measured."""
    console = make_console()
    costs: dict[int, list[Cost]] = {SMALL: [], LARGE: []}
    for number in range(1, runs + 1):
        for num_clients, found in costs.items():
            with console.status(f"run {number} of {runs}: {num_clients:,} clients"):
                found.append(run_once(num_clients, rounds, runtime="in-process" if in_process else DEFAULT))
    console.print(tabulate(costs))
    console.print(machine_line())
    save(output, {"costs": {str(size): [asdict(cost) for cost in found] for size, found in costs.items()}})


if __name__ == "__main__":
    typer.run(main)
