"""How a round of `polyfed run` grows: with its cohort, the population, the model, and the workers.

`python -m simulations.bench.scaling`, with `--full` for every size. Plain PyTorch with as many processes
stands beside it where it trains the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from models.core.config import Value
from simulations.bench.clock import read_starts, warm_rounds
from simulations.bench.command import polyfed_run
from simulations.bench.measurements import FOLDER, machine_line, save
from simulations.bench.networks import num_parameters, wide
from simulations.bench.plain import federation_of, train_side_by_side
from simulations.bench.workloads import WORKLOADS
from simulations.runs.compare import NOTHING
from simulations.terminal import Table, make_console

FILE = "scaling.json"
WARM_UP = 2
"""Rounds of each run that are dropped."""
AXES = ("clients a round", "population", "parameters", "workers")
LOOP, STACKED, PLAIN = "polyfed", "polyfed, stacked", "plain PyTorch"


@dataclass(frozen=True)
class Point:
    """One size on one axis."""

    axis: str
    size: int
    system: str
    keys: dict[str, Value]
    """Of the run config."""
    rounds: int
    workers: int = 2


@dataclass(frozen=True)
class Found:
    """What a point took, in the median of its runs."""

    axis: str
    size: int
    system: str
    seconds: float
    """Of a warm round."""
    start_up: float
    """From the command to the first round; 0 of plain PyTorch, which starts otherwise."""
    driver: float
    """Largest memory of the command's own process, in MB; 0 of plain PyTorch."""


def points(full: bool) -> Iterator[Point]:
    """Yield what is measured, a few sizes of each axis or all of them."""
    w2, w4 = WORKLOADS["W2"].run_config(), WORKLOADS["W4"].run_config()
    for size in (10, 30, 100, 300, 1000) if full else (10, 100, 1000):
        for system in (LOOP, STACKED, PLAIN):
            yield Point(AXES[0], size, system, {**w2, "clients-per-round": size}, 8)
    for size in (1_000, 10_000, 100_000, 1_000_000) if full else (1_000, 1_000_000):
        for system in (LOOP, STACKED):
            yield Point(AXES[1], size, system, {**w2, "num-clients": size}, 12)
    for hidden in (3, 32, 300, 1980, 5692) if full else (3, 300, 1980):
        size = num_parameters(wide(hidden))
        keys = {**w4, "task-options": f"hidden = {hidden}"}
        for system in (LOOP, PLAIN):
            yield Point(AXES[2], size, system, keys, 5 if size > 10**6 else 8)
    for size in (1, 2):
        for system in (LOOP, STACKED, PLAIN):
            yield Point(AXES[3], size, system, {**w2, "num-workers": size}, 12, workers=size)


def measure(point: Point) -> Found:
    """Run a point once."""
    with TemporaryDirectory(prefix="polyfed-bench-") as name:
        folder = Path(name)
        if point.system == PLAIN:
            train_side_by_side(federation_of(point.keys), point.rounds, folder / "clock", point.workers)
            starts, start_up, driver = read_starts(folder / "clock"), 0.0, 0.0
        else:
            engine = "stacked" if point.system == STACKED else "loop"
            settings: dict[str, Value] = {"num-server-rounds": point.rounds, "engine": engine}
            took = polyfed_run(point.keys, folder, settings, peak=True)
            starts, start_up, driver = list(took.starts), took.starts[0], took.driver
    seconds = median(warm_rounds(starts, WARM_UP))
    return Found(point.axis, point.size, point.system, seconds, start_up, driver)


def middle(found: Sequence[Found]) -> list[Found]:
    """Return the median of each point's runs, in the order in which points were first run."""
    runs: dict[tuple[str, int, str], list[Found]] = {}
    for each in found:
        runs.setdefault((each.axis, each.size, each.system), []).append(each)

    def of(each: list[Found], what: Callable[[Found], float]) -> float:
        return median(map(what, each))

    return [
        Found(
            *key,
            of(each, lambda run: run.seconds),
            of(each, lambda run: run.start_up),
            of(each, lambda run: run.driver),
        )
        for key, each in runs.items()
    ]


def read_found(saved: Any) -> list[Found]:
    """Return what the JSON file holds."""
    return [Found(**each) for each in saved["found"]]


HEADINGS = ("axis", "size", "system", "seconds a round", "start to first round, s", "driver's memory, MB")


def rows(found: Sequence[Found]) -> list[list[str]]:
    """Return the cells under HEADINGS, a row a point."""
    return [
        [
            each.axis,
            f"{each.size:,}",
            each.system,
            f"{each.seconds:.3f}",
            f"{each.start_up:.1f}" if each.start_up else NOTHING,
            f"{each.driver:,.0f}" if each.driver else NOTHING,
        ]
        for each in middle(found)
    ]


def tabulate(found: Sequence[Found]) -> Table:
    """Return the table for a terminal."""
    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("axis", "system") else "right")
    for row in rows(found):
        table.add_row(*row)
    return table


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each point, in turn.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Every size; else a few.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="An axis by its name; may be repeated.")] = None,
    output: Annotated[Path, typer.Option(help="JSON file for every number measured.")] = FOLDER / FILE,
) -> None:
    """Measure, print a table, and write what was measured."""
    if unknown := [axis for axis in only or () if axis not in AXES]:
        raise typer.BadParameter(f"--only must be one of {', '.join(AXES)}, got {unknown[0]!r}")
    console = make_console()
    planned = [point for point in points(full) if point.axis in (only or AXES)]
    found: list[Found] = []
    for number in range(1, runs + 1):
        for point in planned:
            with console.status(f"run {number} of {runs}: {point.size:,} {point.axis}, {point.system}"):
                found.append(measure(point))
            save(output, {"found": [asdict(each) for each in found]})
    console.print(tabulate(found))
    console.print(machine_line())


if __name__ == "__main__":
    typer.run(main)
