"""What a short run takes from the command to its end, beside the parts that it cannot do without.

`python -m simulations.bench.startup`. The parts are measured by themselves, in processes of their own:
importing torch, importing and starting Ray, and three rounds of training in plain PyTorch on two warm
processes. The first turn warms the caches of the disk and is dropped.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from simulations.bench.clock import read_starts, warm_rounds
from simulations.bench.command import polyfed_run
from simulations.bench.measurements import FOLDER, machine_line, save
from simulations.bench.plain import federation_of, train_side_by_side
from simulations.scenario import find_scenario, load_scenario
from simulations.terminal import Table, make_console

SCENARIOS = ("mnist", "cnn-digits")
ROUNDS = 3
"""Rounds of the run that is measured; the plain one has a round more to warm up, and one to end the last."""
FILE = "startup.json"
Seconds = dict[str, float]
"""Part -> seconds."""

TORCH = "import torch"
RAY = "import ray; ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR')"
TIMED = "import time; began = time.perf_counter(); {}; print('took', time.perf_counter() - began)"
PARTS = ("importing torch", "importing and starting Ray", f"{ROUNDS} rounds in plain PyTorch, two processes")
SUM, FIRST, DONE, WHOLE, RATIO = (
    "the parts together",
    "polyfed run: start of the first round",
    "polyfed run: first round done",
    f"polyfed run: end, after {ROUNDS} rounds",
    "end to the parts together",
)
WARM = "polyfed.run: the same, on workers that an earlier run has left warm"
TWO_RUNS = """
import sys, tempfile, time, polyfed
with polyfed.Workers() as workers, tempfile.TemporaryDirectory(prefix="polyfed-bench-") as folder:
    for name in "ab":
        began = time.perf_counter()
        polyfed.run("{scenario}", run_dir=f"{{folder}}/{{name}}", workers=workers, progress=False,
                    num_server_rounds={rounds})
    print("took", time.perf_counter() - began)
"""


def timed(statement: str) -> float:
    """Return the seconds that a statement takes in a fresh interpreter."""
    return _said(TIMED.format(statement))


def _said(program: str) -> float:
    """Return the seconds that a program says something took."""
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return float(said.stdout.rsplit("took", 1)[1])


def measure_once(scenario: str) -> Seconds:
    """Measure the parts and the whole, one after the other."""
    found = dict(zip(PARTS, (timed(TORCH), timed(RAY), _training(scenario)), strict=True))
    with TemporaryDirectory(prefix="polyfed-bench-") as folder:
        took = polyfed_run(find_scenario(scenario), Path(folder), {"num-server-rounds": ROUNDS})
    found |= {SUM: sum(found.values()), FIRST: took.starts[0], DONE: took.starts[1], WHOLE: took.whole}
    found[WARM] = _said(TWO_RUNS.format(scenario=scenario, rounds=ROUNDS))
    return found | {RATIO: found[WHOLE] / found[SUM]}


def _training(scenario: str) -> float:
    """Return the seconds of three rounds in plain PyTorch, on processes that are warm."""
    keys = load_scenario(scenario)
    cohort = int(keys["clients-per-round"]) or int(keys["num-clients"])
    with TemporaryDirectory(prefix="polyfed-bench-") as folder:
        clock = Path(folder, "clock")
        train_side_by_side(federation_of({**keys, "clients-per-round": cohort}), ROUNDS + 2, clock)
        return sum(warm_rounds(read_starts(clock), warm_up=1))


def middle(turns: list[Seconds]) -> Seconds:
    """Return the median of each part by itself; the ratio is of the medians."""
    found = {part: median(turn[part] for turn in turns) for part in turns[0]}
    return found | {RATIO: found[WHOLE] / found[SUM]}


def rows(found: Mapping[str, list[Seconds]]) -> list[list[str]]:
    """Return a row a part, with a column a scenario."""
    middles = [middle(turns) for turns in found.values()]
    parts = [*PARTS, SUM, FIRST, DONE, WHOLE, RATIO, WARM]
    return [[part, *(f"{each[part]:.2f}" for each in middles)] for part in parts]


def tabulate(found: Mapping[str, list[Seconds]]) -> Table:
    """Return the table for a terminal."""
    table = Table(caption=caption(found))
    table.add_column("seconds")
    for scenario in found:
        table.add_column(scenario, justify="right")
    for row in rows(found):
        table.add_row(*row)
    return table


def caption(found: Mapping[str, list[Seconds]]) -> str:
    """Return of how many turns the numbers are."""
    turns = len(next(iter(found.values())))
    return f"Medians of {turns} turn{'s' if turns > 1 else ''}, after one that warms the caches of the disk."


def markdown(found: Mapping[str, list[Seconds]]) -> str:
    """Return the table for the docs."""
    lines = [["seconds", *(f"`{name}`" for name in found)], ["---", *["---:"] * len(found)], *rows(found)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{caption(found)}\n"


def main(
    runs: Annotated[int, typer.Option(min=1, help="Turns that count.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="A scenario; may be repeated.")] = None,
    output: Annotated[Path, typer.Option(help="JSON file for every number measured.")] = FOLDER / FILE,
) -> None:
    """Measure, print a table, and write what was measured."""
    console = make_console()
    found: dict[str, list[Seconds]] = {scenario: [] for scenario in only or SCENARIOS}
    for number in range(runs + 1):
        for scenario, turns in found.items():
            with console.status(f"turn {number} of {runs}: {scenario}"):
                turn = measure_once(scenario)
            turns += [turn] if number else []
    console.print(tabulate(found))
    console.print(machine_line())
    save(output, {"scenarios": found})


if __name__ == "__main__":
    typer.run(main)
