"""The workers of a simulation on Ray, each in a seat that another one takes when it dies."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import ray
from flwr.app import RecordDict
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError

from models.core.config import Value
from models.core.log import log
from models.core.tracebacks import line_of, traceback_of
from server.exchange import one_line
from simulations.config import ResolvedSimulation
from simulations.runtime.ray_worker import RayWorker
from strategies.wire.node import NodeDescription, NodeError

DEATHS = (RayActorError, OutOfMemoryError, ObjectLostError)
"""What Ray answers in the place of a worker that is gone, or whose answer is gone with its machine."""
AT_ONCE = 2.0
"""Seconds that a worker gets to turn to another run."""
MOST_STARTS = 3
"""Workers, one after the other, that may die in a seat before they have begun."""
LONGEST_WAIT = 1000.0
"""Seconds that Ray is asked to wait at a time: it takes no infinity."""


@dataclass(eq=False)
class Seat:
    """Where a worker works; another one takes it when the first has died."""

    number: int
    actor: Any
    """Ray's handle of the worker."""
    begun: Any = None
    """Ray's reference to what the worker says of itself; None where it has not been asked."""
    ready: bool = False
    """Whether it has said so, and can be given work."""
    failed_starts: int = 0
    """Workers of this seat, the last ones in a row, that died before they had begun."""
    succeeds: bool = False
    """Whether the worker took the place of one that was ready."""


@dataclass
class RayWorkers:
    """The seats, each with a worker that lives or is on its way."""

    run_config: dict[str, Value]
    simulation: ResolvedSimulation
    worker: type[RayWorker] = RayWorker
    given: tuple[Any, ...] = ()
    """What such a worker takes beside the run config."""
    where: str = ""
    """Where they are, and where clients' states go, for the run's log; "" on this machine alone."""
    let_go: Callable[[], None] = lambda: None
    """What to call when nothing more is asked of them."""
    seats: list[Seat] = field(default_factory=list)
    said: NodeDescription | None = None
    """What each worker says of the node that they all are; None before the first one has."""
    machines: list[str] = field(default_factory=list)
    """What they compute with, a line for each kind."""

    def start(self) -> None:
        """Let Ray start a worker for each seat; they import what they need by themselves."""
        for number in range(self.simulation.num_workers):
            self.seats.append(Seat(number, self._start()))

    def begin(self, run_config: dict[str, Value]) -> None:
        """Let the workers go on to another run; one that still works for the last one is replaced."""
        self.run_config, self.said, self.machines = run_config, None, []
        begun = {seat.actor.begin.remote(run_config): seat for seat in self.seats}
        ready, _ = ray.wait(list(begun), num_returns=len(begun), timeout=AT_ONCE)
        for answer, seat in begun.items():
            seat.begun, seat.ready, seat.failed_starts, seat.succeeds = None, False, 0, False
            try:
                if answer not in ready:
                    raise TimeoutError(f"it has not ended the last run's work within {AT_ONCE:g} s")
                ray.get(answer)
            except (*DEATHS, TimeoutError) as error:
                self._start_anew(seat, line_of(error))

    def restart(self, run_config: dict[str, Value]) -> None:
        """Go on to another run with new workers."""
        self.end()
        self.run_config, self.said, self.machines, self.seats = run_config, None, [], []
        self.start()

    def describe(self, patience: float) -> RecordDict:
        """Return what the workers say of the node, once all of them have begun.

        Raises NodeError where one cannot, or they have not within `patience` seconds.
        """
        give_up = time.monotonic() + patience
        while beginning := self.beginning():
            left = max(give_up - time.monotonic(), 0.0)
            ready, _ = ray.wait(list(beginning), timeout=min(left, LONGEST_WAIT))
            for begun in ready:
                self.hear(beginning[begun])
            if not ready and time.monotonic() >= give_up:
                raise NodeError(f"not all of its workers began within {patience:g} s; raise node-timeout", "")
        assert self.said is not None
        return self.said.model_copy(update={"machine": "; ".join(sorted(self.machines))}).pack()

    def beginning(self) -> Mapping[Any, Seat]:
        """Return the seats whose worker is not known to have begun, by what `ray.wait` waits for."""
        waited_for = {}
        for seat in self.seats:
            if seat.ready:
                continue
            if seat.begun is None:
                seat.begun = seat.actor.describe.remote()
            waited_for[seat.begun] = seat
        return waited_for

    def hear(self, seat: Seat) -> None:
        """Take in that a seat's worker has begun; one that died instead is replaced, a few times in a row.

        Raises NodeError where the node cannot take part.
        """
        try:
            why, whole = self._take_in(ray.get(seat.begun))
            may_pass = seat.succeeds  # as when a GPU's memory is not free yet of the worker before
        except DEATHS as error:
            why, whole, may_pass = how_it_died(error), traceback_of(error), True
        except RayTaskError as error:
            why, whole, may_pass = line_of(error.cause), str(error), seat.succeeds
        if not why:
            seat.ready, seat.failed_starts = True, 0
            return
        seat.failed_starts += 1
        if not may_pass:
            raise NodeError(why, whole)
        if seat.failed_starts >= MOST_STARTS:
            raise NodeError(f"a worker could not begin, {MOST_STARTS} times in a row: {why}", whole)
        self._start_anew(seat, f"it could not begin: {why}")

    def replace(self, seat: Seat, why: str) -> None:
        """End a seat's worker, if it lives, and let another one take the seat."""
        seat.succeeds = True
        self._start_anew(seat, why)

    def end(self) -> None:
        """End all workers, whatever they do: Ray would wait for those that train."""
        for seat in self.seats:
            ray.kill(seat.actor)

    def _take_in(self, said: RecordDict) -> tuple[str, str]:
        """Return why a worker that says this cannot take part, in a line and as a whole; "" where it can."""
        try:
            description = NodeDescription.unpack(said)
        except NodeError as error:
            return str(error), error.whole
        alike = description.model_copy(update={"machine": ""})
        if self.said not in (None, alike):
            return "its workers have other code or data than one another", f"{self.said}\n{alike}"
        self.said = alike
        if description.machine not in self.machines:
            self.machines.append(description.machine)
            if len(self.machines) > 1:
                said_of = "Workers compute on different machines, which may round differently: %s"
                log(WARNING, said_of, sorted(self.machines))
        return "", ""

    def _start_anew(self, seat: Seat, why: str) -> None:
        log(WARNING, "Worker %d is replaced: %s", seat.number, why)
        ray.kill(seat.actor)
        seat.actor, seat.begun, seat.ready = self._start(), None, False

    def _start(self) -> Any:
        options = {
            "num_cpus": 1,
            "num_gpus": self.simulation.client_gpus,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",  # over the nodes, where there are several
        }
        return ray.remote(**options)(self.worker).remote(self.run_config, *self.given)  # type: ignore[call-overload]


def how_it_died(error: Exception) -> str:
    """Return why a worker died, in one line."""
    said = str(error)
    if isinstance(error, OutOfMemoryError) or "OutOfMemory" in said or "out of memory" in said.lower():
        return f"it ran out of memory: {one_line(said)}"
    return f"it died or was killed: {one_line(said)}"
