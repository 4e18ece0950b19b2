"""Seconds a round on real nodes, and where they go: `python -m simulations.bench.nodes`.

A SuperLink and three SuperNodes on the loopback run an app whose rounds do nothing, and `cnn` on a third of
the dataset each, with and without the resident worker. What lies between the start of a round and that of
the next is told from when the nodes' logs say what.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Annotated

import typer

from models.core.config import Value
from server.errors import RunFailedError
from simulations.bench.clock import clocked, read_starts
from simulations.bench.idle_app import write_idle_app
from simulations.bench.measurements import FOLDER, machine_line, save
from simulations.bench.real_nodes import MOMENTS, Federation, Moment, real_nodes
from simulations.runtime.staging import stage
from simulations.terminal import make_console

NODES = 3
WARM_UP = 1
"""Rounds that do not count."""
FILE = "nodes.json"
IDLE, ALONE, RESIDENT = "rounds that do nothing", "`cnn`", "`cnn`, resident worker"
PARTS = (
    "until a node asks for its message",
    "until its ClientApp has started",
    "until the node has the answer",
    "sending it, other nodes, and the server",
)
ROUND, RATIO = "the round", "times the round that does nothing"
CPU = "processors, all processes together"
Seconds = dict[str, float]
"""Part of a round -> seconds."""


def measure(what: str, rounds: int, dataset: str) -> list[Seconds]:
    """Return the parts of each round that counts."""
    count = rounds + WARM_UP + 1
    resident = "resident=true" if what == RESIDENT else ""
    with real_nodes(NODES, resident) as federation, ThreadPoolExecutor() as pool:
        clock, ended = federation.folder / "clock", threading.Event()
        clock.touch()
        used = [pool.submit(_cpu_at, federation, clock, at, ended) for at in (WARM_UP + 1, count)]
        try:
            if what == IDLE:
                said = _run_idle(federation, clock, count)
            else:
                said = _run_cnn(federation, clock, count, dataset)
        finally:
            ended.set()
        starts = read_starts(clock)
        if len(starts) != count:
            raise RunFailedError(f"{what}: {len(starts)} rounds have begun\n{said}")
        before, after = (each.result() for each in used)
        found = parts_of(starts[WARM_UP:], federation.moments)
        return [{**each, CPU: (after - before) / rounds} for each in found]


def _cpu_at(federation: Federation, clock: Path, number: int, ended: threading.Event) -> float:
    """Return the seconds of processors that were used when a round started."""
    while not ended.wait(0.02):
        with suppress(FileNotFoundError):  # the first round begins a new file
            if len(read_starts(clock)) >= number:
                return federation.cpu_seconds()
    return 0.0


def _run_idle(federation: Federation, clock: Path, rounds: int) -> str:
    app = write_idle_app(federation.folder / "idle")
    return federation.run(app, {"nodes": NODES, "rounds": rounds, "clock": str(clock)})


def _run_cnn(federation: Federation, clock: Path, rounds: int, dataset: str) -> str:
    run_config: dict[str, Value] = {
        "task": "cnn",
        "dataset": dataset,
        "num-clients": NODES,
        "num-server-rounds": rounds,
        "run-dir": str(federation.folder / "run"),
        **clocked(clock),
    }
    return federation.run(stage(federation.folder / "staged"), run_config)


def parts_of(starts: Sequence[float], moments: Sequence[Moment]) -> list[Seconds]:
    """Return the parts of the rounds between these starts, each the mean of the nodes.

    Raises RunFailedError where a node has not had its turn in a round.
    """
    found = []
    for begin, end in pairwise(starts):
        turns: dict[int, dict[str, float]] = {}
        for moment in moments:
            if begin <= moment.at < end:
                turns.setdefault(moment.node, {})[moment.what] = moment.at
        if any(turn.keys() != MOMENTS.keys() for turn in turns.values()) or len(turns) != NODES:
            raise RunFailedError(f"not every node has had its turn in a round: {turns}")
        times = [[begin, *(turn[what] for what in MOMENTS), end] for turn in turns.values()]
        spans = [[after - before for before, after in pairwise(each)] for each in times]
        parts = {part: mean(span) for part, span in zip(PARTS, zip(*spans, strict=True), strict=True)}
        found.append({**parts, ROUND: end - begin})
    return found


def rows(found: Mapping[str, Sequence[Seconds]]) -> list[list[str]]:
    """Return a row a part, with a column an app: medians of the rounds."""
    every = (*PARTS, ROUND, CPU)
    middles = {
        what: {part: median(each[part] for each in rounds) for part in every}
        for what, rounds in found.items()
    }
    table = [[part, *(f"{middle[part]:.2f}" for middle in middles.values())] for part in every]
    ratios = [middle[ROUND] / middles[IDLE][ROUND] for middle in middles.values()]
    table.insert(-1, [RATIO, *(f"{ratio:.2f}" for ratio in ratios)])
    return table


def caption(found: Mapping[str, Sequence[Seconds]]) -> str:
    """Return of how many rounds the numbers are."""
    counts = sorted({len(rounds) for rounds in found.values()})
    return f"Medians of {' or '.join(map(str, counts))} rounds, and means of {NODES} nodes."


def markdown(found: Mapping[str, Sequence[Seconds]]) -> str:
    """Return the table, as it stands in docs/speed.md."""
    lines = [["seconds from the start of a round", *found], ["---", *["---:"] * len(found)], *rows(found)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{caption(found)}\n"


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each app that count, a turn.")] = 8,
    turns: Annotated[int, typer.Option(min=1, help="How often each app runs.")] = 2,
    dataset: Annotated[str, typer.Option(help="What `cnn` is trained on.")] = "digits",
    output: Annotated[Path, typer.Option(help="JSON file for every number measured.")] = FOLDER / FILE,
) -> None:
    """Measure, print a table, and write what was measured."""
    console = make_console()
    found: dict[str, list[Seconds]] = {what: [] for what in (IDLE, ALONE, RESIDENT)}
    for turn in range(turns):
        for what, seconds in found.items():
            with console.status(f"turn {turn + 1} of {turns}: {what}"):
                seconds += measure(what, rounds, dataset)
    print(markdown(found))
    print(f"Measured on: {machine_line()}.")
    save(output, {"dataset": dataset, "apps": found})


if __name__ == "__main__":
    typer.run(main)
