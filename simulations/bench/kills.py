"""Kills runs at random instants, and counts what is left of them: `python -m simulations.bench.kills`.

A short run is killed by SIGKILL, SIGTERM and SIGINT in turn, at instants that are drawn between its start and
its end. After each, no process of it, no file in /dev/shm and no temporary file may be left; the exit code is
1 where something is.
"""

import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from server.run_schema import METRICS
from simulations.bench.left_overs import LeftOvers, watched
from simulations.bench.measurements import machine_line
from simulations.terminal import Table, make_console

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 60.0
"""Seconds that a killed run has until nothing of it may be left."""
LONGEST = 600.0
"""Seconds that a run may take that nobody kills."""
SETTINGS = {"num-server-rounds": 5, "num-clients": 20, "local-epochs": 2, "trackers": "''"}


@dataclass(frozen=True)
class Killed:
    """A run that was killed, and what is left of it."""

    how: str
    """The signal's name, or "" where the run had ended by then."""
    after: float
    """Seconds from its start."""
    during: str
    """What it was doing."""
    processes: int
    """How many there were."""
    left: LeftOvers
    gone_after: float
    """Seconds from the signal until nothing was left."""


def one_kill(how: signal.Signals, after: float, patience: float = PATIENCE) -> Killed:
    """Start a run, kill it so many seconds later, and see what is left."""
    with TemporaryDirectory(prefix="polyfed-kills-") as scratch:
        run = Path(scratch) / "run"
        with watched(command(run), Path(scratch) / "log") as found:
            began = time.monotonic()
            runs = found.runs_for(after)
            after, processes, during = time.monotonic() - began, len(found.look()), doing(run)
            if runs:
                found.process.send_signal(how)
            left, gone_after = found.left_after(patience)
        name = how.name if runs else ""
        return Killed(name, after, during if runs else "ended by itself", processes, left, gone_after)


def whole_run() -> float:
    """Return the seconds that a run takes which nobody kills."""
    killed = one_kill(signal.SIGKILL, LONGEST)
    if killed.how or killed.left:
        raise RuntimeError(f"a run that nobody kills does not end, or leaves something: {killed}")
    return killed.after


def command(run: Path) -> list[str]:
    """Return the command of a short run on Ray."""
    words = [sys.executable, "-m", "simulations.cli", "run", "cnn-digits", "--run-dir", str(run)]
    return words + [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]


def doing(run: Path) -> str:
    """Return what a run is doing, by what it has written."""
    if not run.exists():
        return "starting"
    metrics = run / METRICS
    lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    return f"round {lines}" if lines else "starting Ray"


def tabulate(kills: Sequence[Killed]) -> Table:
    """Return the table for a terminal."""
    table = Table(caption=f"{sum(bool(each.left) for each in kills)} of {len(kills)} left anything.")
    for heading in (
        "signal",
        "after s",
        "during",
        "processes",
        "left",
        "in /dev/shm",
        "temporary",
        "gone after s",
    ):
        table.add_column(heading)
    for each in kills:
        left = (each.left.processes, each.left.shared, each.left.temporary)
        table.add_row(
            each.how or "none",
            f"{each.after:.1f}",
            each.during,
            str(each.processes),
            *(str(len(some)) for some in left),
            f"{each.gone_after:.1f}",
        )
    return table


def main(
    kills: Annotated[int, typer.Option(min=1, help="Runs to kill.")] = 10,
    seed: Annotated[int | None, typer.Option(help="Of the instants; drawn and printed unless given.")] = None,
) -> None:
    """Kill runs, print what is left of each, and exit with 1 where anything is."""
    console = make_console()
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    drawn = random.Random(seed)
    with console.status("a run that nobody kills"):
        whole = whole_run()
    console.print(f"seed {seed}; a run that nobody kills takes {whole:.1f} s")
    found: list[Killed] = []
    while (killed := sum(bool(each.how) for each in found)) < kills:  # those that ended before do not count
        how, after = SIGNALS[killed % len(SIGNALS)], drawn.uniform(0.0, whole)
        with console.status(f"kill {killed + 1} of {kills}: {how.name} after {after:.1f} s"):
            found.append(one_kill(how, after))
        if found[-1].left:
            console.print(f"{how.name} after {after:.1f} s left {found[-1].left}", soft_wrap=True)
    console.print(tabulate(found))
    console.print(machine_line())
    if any(each.left for each in found):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
