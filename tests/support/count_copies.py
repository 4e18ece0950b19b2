"""Counts the copies of a model of 100 MB that a round makes: python count_copies.py FOLDER.

Every array of more than 32 MiB gets fresh pages of the kernel, one fault each when it is first written. So a
process's page faults tell what it has allocated and filled, whoever allocated it, and a copy of the model is
as many faults as the model has pages. What is written into memory that is there already is not counted.
"""

import ctypes
import functools
import json
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import clients.train
from clients.worker import Worker
from server.rounds import RoundLoop
from simulations.bench.workloads import WORKLOADS
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults
from strategies.wire.exact_sum import ExactSum

PR_SET_THP_DISABLE = 41
"""Option of prctl(2): with huge pages a fault would be of 512 pages."""
MODEL = 25_058_890 * 4
"""Bytes of the model."""
NUM_CLIENTS, NUM_ROUNDS = 3, 2


def faults() -> int:
    """Return the page faults of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Phases:
    """Counts faults by phase; those within an inner phase are not the outer one's."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._inner = [0]

    def watch(self, owner: Any, name: str, phase: str) -> None:
        """Count the faults of a function of a module or class."""
        watched = getattr(owner, name)

        @functools.wraps(watched)
        def counted(*arguments: Any, **options: Any) -> Any:
            before = faults()
            self._inner.append(0)
            try:
                return watched(*arguments, **options)
            finally:
                whole = faults() - before
                self.counts[phase] += whole - self._inner.pop()
                self._inner[-1] += whole

        setattr(owner, name, counted)


def main(folder: Path) -> None:
    """Run two rounds, and print the copies that the second one made, by phase."""
    assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
    phases, begun = Phases(), RoundLoop._round

    def begin(loop: RoundLoop, server_round: int) -> Any:
        phases.counts.clear()
        return begun(loop, server_round)

    RoundLoop._round = begin  # type: ignore[method-assign]
    phases.watch(RoundLoop, "_round", "rest of the round")
    phases.watch(clients.train, "train_client", "worker: from the request to the reply")
    phases.watch(clients.train, "train_epochs", "worker: training")
    phases.watch(Worker, "put", "worker: putting weights into the model")
    phases.watch(ExactSum, "_expect", "sum")
    phases.watch(ExactSum, "merge", "server: merging")
    phases.watch(ExactSum, "mean", "server: mean")
    phases.watch(RoundLoop, "_aggregate", "server: aggregation")
    phases.watch(RoundLoop, "_tell", "server: checkpoint")
    config = {
        **defaults(),
        **WORKLOADS["W4"].run_config(),
        "dataset-options": f"num_examples = {20 * NUM_CLIENTS}",
        "num-clients": NUM_CLIENTS,
        "clients-per-round": NUM_CLIENTS,
        "num-server-rounds": NUM_ROUNDS,
        "run-dir": str(folder / "run"),
        **(json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}),
    }
    run_in_process(config)
    pages = MODEL / resource.getpagesize()
    print(json.dumps({phase: round(count / pages, 2) for phase, count in phases.counts.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
