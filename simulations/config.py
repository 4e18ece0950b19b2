"""How many workers and nodes a simulation gets, and whether this machine can carry them."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from joblib import cpu_count  # heeds what a scheduler or a container allows this process
from pydantic import Field, model_validator

from models.core.config import Config, Count, require
from models.core.errors import UserError


class SimulationConfig(Config):
    """What `polyfed run` asks of the machine; plain `flwr run` takes --federation-config instead."""

    num_workers: Count = 0
    """Processes that train side by side; 0 = one a CPU, or as many as the GPUs hold."""
    num_nodes: Count = 0
    """Simulated SuperNodes under Flower and in process, among which clients are dealt; 0 = one a worker."""
    client_gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of a worker: 0.25 puts four on one GPU; above 1 it is a whole number."""

    cluster_data: Literal["driver", "nodes"] = "driver"
    """On a Ray cluster: "driver" sends nodes a dataset of files, "nodes" read it by themselves."""
    cluster_states: Literal["driver", "shared"] = "driver"
    """On a Ray cluster: what clients remember goes to the driver, or into the run folder on a shared disk."""

    @model_validator(mode="after")
    def _can_be_handed_out(self) -> Self:
        # Ray hands out parts of one GPU or whole GPUs, nothing in between.
        shareable = self.client_gpus <= 1 or self.client_gpus.is_integer()
        require(shareable, "client-gpus", "in [0, 1] or a whole number", self.client_gpus)
        return self


@dataclass(frozen=True)
class ResolvedSimulation:
    """A simulation that this machine can carry."""

    num_workers: int
    """Processes that train side by side, >= 1."""
    num_nodes: int
    """Simulated SuperNodes, >= 1."""
    client_gpus: float
    """GPUs of a worker, >= 0."""


def resolve(
    config: SimulationConfig,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    where: str = "this machine",
) -> ResolvedSimulation:
    """Fill in what `config` leaves open; `num_cpus` and `num_gpus` are this machine's unless given.

    Raises UserError where there are too few CPUs or GPUs `where` the workers are to be.
    """
    num_cpus = cpu_count() if num_cpus is None else num_cpus
    most = num_cpus
    if config.client_gpus > 0:
        num_gpus = _gpus_of_this_machine() if num_gpus is None else num_gpus
        on_gpus = _workers_on_gpus(num_gpus, config.client_gpus)
        if on_gpus == 0:
            raise UserError(
                f"client-gpus must be at most {num_gpus}, the GPUs of {where}, got "
                f"{config.client_gpus:g}; set it to 0 to train on the CPU"
            )
        if config.num_workers > on_gpus:
            raise UserError(
                f"num-workers must be at most {on_gpus}, as client-gpus is {config.client_gpus:g} and "
                f"{where} has {num_gpus} GPUs, got {config.num_workers}; lower one of the two"
            )
        most = min(num_cpus, on_gpus)
    if config.num_workers > num_cpus:
        raise UserError(
            f"num-workers must be at most {num_cpus}, the CPUs of {where}, got "
            f"{config.num_workers}; lower it, or set it to 0 for one a CPU"
        )
    workers = config.num_workers or most
    return ResolvedSimulation(workers, config.num_nodes or workers, config.client_gpus)


def _workers_on_gpus(num_gpus: int, share: float) -> int:
    """A worker never straddles two GPUs, so 0.4 of a GPU leaves a fifth of each unused."""
    if share > 1:
        return num_gpus // int(share)
    return num_gpus * int(1 / share + 1e-9)


def _gpus_of_this_machine() -> int:
    import torch  # takes seconds to import, and only a run on GPUs asks

    return torch.cuda.device_count()
