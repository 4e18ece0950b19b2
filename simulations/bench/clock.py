"""When rounds start: the one measure that a strategy under any ServerApp and a plain loop share."""

import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from strategies.algorithms.fedprox import FedProx
from strategies.declaration import Declaration


def note_start(clock: Path) -> None:
    """Append the time of day, in seconds, to the file `clock`."""
    with clock.open("a", encoding="utf-8") as file:
        file.write(f"{time.time()!r}\n")


def read_starts(clock: Path) -> list[float]:
    """Return the times that were noted, in seconds."""
    return [float(line) for line in clock.read_text(encoding="utf-8").split()]


def warm_rounds(starts: Sequence[float], warm_up: int) -> list[float]:
    """Return the seconds from the start of each round to the start of the next, without the first `warm_up`.

    The last round has no next one and is left out: n starts give n - 1 - warm_up rounds.
    """
    seconds = [after - before for before, after in pairwise(starts)]
    return seconds[warm_up:]


def median_of_medians(runs: Iterable[Sequence[float]]) -> float:
    """Return the median of the runs' medians, so that one run on a busy machine has one voice."""
    return median(median(rounds) for rounds in runs)


class ClockedFedAvg(FedAvg):
    """FedAvg with a clock: it notes the start of every round in the file `clock`."""

    declaration = Declaration(weighted_mean=True)

    def __init__(self, clock: str, **options: Any) -> None:
        super().__init__(**options)
        self.clock = clock

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note the time, then do as the strategy does."""
        if server_round == 1:
            Path(self.clock).unlink(missing_ok=True)  # the plan of the run tries this round on a copy
        note_start(Path(self.clock))
        return super().configure_train(server_round, arrays, config, grid)


class ClockedFedProx(ClockedFedAvg, FedProx):
    """FedProx with a clock: what a local rule costs."""

    declaration = FedProx.declaration


def clocked(clock: Path, strategy: type[ClockedFedAvg] = ClockedFedAvg, options: str = "") -> dict[str, str]:
    """Return the run-config keys that let polyfed run with this strategy; `options` are its own."""
    return {
        "strategy": f"{strategy.__module__}:{strategy.__name__}",
        "strategy-options": f"clock = '{clock}'{options}",
    }
