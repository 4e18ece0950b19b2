"""Who trains a workload: polyfed in its ways, a stock Flower app, plain PyTorch."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from models.core.config import Value
from server.errors import RunFailedError
from server.run_schema import FLOWER_LOG
from simulations.bench.clock import ClockedFedAvg, ClockedFedProx, read_starts, warm_rounds
from simulations.bench.command import DEFAULT, RUNTIMES, polyfed_run
from simulations.bench.plain import federation_of, train_plainly, train_side_by_side
from simulations.bench.workloads import LEARNING_RATE, WORKLOADS
from simulations.config import SimulationConfig, resolve
from simulations.runs.reader import read_run
from simulations.runtime.flower import run_on_flower

STOCK = Path(__file__).parent / "stock"
POLYFED, STACKED = "polyfed", "polyfed, stacked"
STOCK_APP, PLAIN = "stock Flower app", "plain PyTorch, two processes"
"""Systems that the tables divide by."""


@dataclass(frozen=True)
class Measured:
    """One run of a workload on a system."""

    start_up: float
    """Seconds from the call to the start of the first round."""
    rounds: list[float]
    """Seconds of each warm round."""
    whole: float
    """Seconds from the call to its end."""


def run_polyfed(
    folder: Path,
    name: str,
    num_rounds: int,
    engine: str = "loop",
    runtime: str = DEFAULT,
    strategy: type[ClockedFedAvg] = ClockedFedAvg,
    options: str = "",
) -> list[float]:
    """Run a workload by the `polyfed run` command; return when its rounds started, from the call."""
    workload = WORKLOADS[name]
    settings: dict[str, Value] = {"num-server-rounds": num_rounds, "engine": engine}
    took = polyfed_run(
        workload.run_config(), folder, settings, runtime=runtime, strategy=strategy, options=options
    )
    full = [r for r in read_run(folder / "run").rounds if len(r.clients) == workload.clients_per_round]
    if len(full) != num_rounds:
        raise RunFailedError(
            f"polyfed: not all of the {workload.clients_per_round} clients answered in every round"
        )
    return list(took.starts)


def run_stock(folder: Path, name: str, num_rounds: int) -> list[float]:
    """Run a workload on the stock app under Flower's runtime, with 1 CPU an actor."""
    workload, began = WORKLOADS[name], time.time()
    run_config: dict[str, Value] = {
        "workload": name,
        "num-server-rounds": num_rounds,
        "num-clients": workload.num_clients,
        "fraction-train": workload.clients_per_round / workload.num_clients,
        "batch-size": int(workload.keys["batch-size"]),
        "learning-rate": LEARNING_RATE,
        "threads": 1,
        "run-dir": str(folder),
    }
    simulation = replace(resolve(SimulationConfig()), num_nodes=workload.num_clients)
    outcome = run_on_flower(run_config, simulation, app=STOCK)
    if outcome.error:
        raise RunFailedError(f"the stock app: {outcome.error}")
    full = f"aggregate_train: Received {workload.clients_per_round} results and 0 failures"
    if (folder / FLOWER_LOG).read_text(encoding="utf-8").count(full) != num_rounds:
        raise RunFailedError(
            f"the stock app: not all of the {workload.clients_per_round} clients answered in every round"
        )
    return _since(began, folder)


def run_plain(folder: Path, name: str, num_rounds: int, num_processes: int) -> list[float]:
    """Run a workload in plain PyTorch, in this process or in several."""
    began = time.time()
    federation = federation_of(WORKLOADS[name].run_config())
    if num_processes == 1:
        train_plainly(federation, num_rounds, folder / "clock")
    else:
        train_side_by_side(federation, num_rounds, folder / "clock", num_processes)
    return _since(began, folder)


def _since(began: float, folder: Path) -> list[float]:
    return [start - began for start in read_starts(folder / "clock")]


@dataclass(frozen=True)
class System:
    """A way to train."""

    run: Callable[[Path, str, int], list[float]]
    """Takes a folder, the name of a workload and a number of rounds; returns when they started."""
    on: tuple[str, ...] | None = None
    """Workloads that it is measured on where nobody asks for it; None = all."""
    stacks: bool = False
    """Whether it trains clients as a stack, which not all workloads can."""

    def trains(self, name: str, *, asked: bool) -> bool:
        """Return whether it is measured on a workload; `asked` says whether somebody asked for it."""
        chosen = asked or self.on is None or name in self.on
        return chosen and (WORKLOADS[name].stacks or not self.stacks)

    def measure(self, folder: Path, name: str, num_rounds: int) -> Measured:
        """Run a workload and return what it took."""
        began = time.time()
        starts = self.run(folder, name, num_rounds)
        whole = time.time() - began
        return Measured(starts[0], warm_rounds(starts, WORKLOADS[name].warm_up), whole)


def _ways_of_polyfed() -> dict[str, System]:
    """Return polyfed as `polyfed run` goes by itself, and under Flower's runtime where that is another."""
    found = {
        POLYFED: System(run_polyfed),
        STACKED: System(partial(run_polyfed, engine="stacked"), on=("W1", "W2"), stacks=True),
    }
    for runtime in RUNTIMES:
        if runtime not in (DEFAULT, "in-process"):
            loop, stacked = (partial(run_polyfed, runtime=runtime, engine=e) for e in ("loop", "stacked"))
            found[f"polyfed --runtime {runtime}"] = System(loop, on=("W2",))
            found[f"polyfed --runtime {runtime}, stacked"] = System(stacked, on=("W2",), stacks=True)
    fedprox = partial(run_polyfed, strategy=ClockedFedProx, options=", proximal_mu = 0.1")
    in_process = partial(run_polyfed, runtime="in-process")
    return found | {
        "polyfed, FedProx": System(fedprox, on=("W2",)),
        "polyfed --in-process": System(in_process, on=()),
    }


SYSTEMS: Mapping[str, System] = {
    **_ways_of_polyfed(),
    STOCK_APP: System(run_stock),
    PLAIN: System(partial(run_plain, num_processes=2)),
    "plain PyTorch, one process": System(partial(run_plain, num_processes=1)),
}
"""Name -> how it trains; polyfed's clients are trained one by one unless it says otherwise."""
