"""The workers of a simulation on Ray, each in a seat that another one takes when it dies."""

from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import ray
from ray.exceptions import RayActorError

from models.core.config import Value
from models.core.log import log
from simulations.config import ResolvedSimulation
from simulations.runtime.ray_worker import RayWorker


@dataclass(eq=False)
class Seat:
    """Where a worker works; another one takes it when the first has died."""

    number: int
    actor: Any
    """Ray's handle of the worker."""
    begun: Any
    """Ray's reference to its first answer."""

    def has_begun(self) -> bool:
        """Return whether the worker has ever answered."""
        ready, _ = ray.wait([self.begun], timeout=0)
        try:
            return bool(ready and ray.get(self.begun))
        except RayActorError:
            return False


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
    seats: list[Seat] = field(default_factory=list)

    def start(self) -> None:
        """Let Ray start a worker for each seat; they import what they need by themselves."""
        for number in range(self.simulation.num_workers):
            self.seats.append(Seat(number, *self._start()))

    def replace(self, seat: Seat, why: str) -> None:
        """End a seat's worker, if it lives, and let another one take the seat."""
        log(WARNING, "Worker %d is replaced: %s", seat.number, why)
        ray.kill(seat.actor)
        seat.actor, seat.begun = self._start()

    def end(self) -> None:
        """End all workers, whatever they do: Ray would wait for those that train."""
        for seat in self.seats:
            ray.kill(seat.actor)

    def _start(self) -> tuple[Any, Any]:
        options = {
            "num_cpus": 1,
            "num_gpus": self.simulation.client_gpus,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",  # over the nodes, where there are several
        }
        actor = ray.remote(**options)(self.worker).remote(self.run_config, *self.given)  # type: ignore[call-overload]
        return actor, actor.place.remote()
