"""What a scenario needs of this machine."""

from collections.abc import Sequence

from joblib import cpu_count  # heeds what a scheduler or a container allows this process

from models.core.config import RunConfig, TaskConfig, read
from models.core.errors import UserError
from server.config import ServerConfig
from server.errors import RunFailedError
from server.strategy import cohort_size
from simulations.config import SimulationConfig, resolve
from simulations.doctor.finding import Finding
from simulations.doctor.gpus import Gpu
from simulations.doctor.memory import memory
from simulations.doctor.one_client import measure
from simulations.doctor.proposal import proposal_findings, propose


def needs(run_config: RunConfig, gpus: Sequence[Gpu]) -> list[Finding]:
    """Return what one client costs, and what to set; or why the scenario cannot run here."""
    task, server = read(TaskConfig, run_config), read(ServerConfig, run_config)
    try:
        resolve(read(SimulationConfig, run_config))
        cost = measure(run_config)
    except (UserError, RunFailedError) as error:
        return [Finding("scenario", " ".join(str(error).split()), "wrong", "change that key, or the machine")]
    found = propose(
        cost,
        cohort=cohort_size(server, task.num_clients),
        num_cpus=cpu_count(),
        memory=memory().available,
        threads=task.threads,
        gpu_memory=min((gpu.memory for gpu in gpus), default=0),
        num_gpus=len(gpus),
    )
    return proposal_findings(cost, found)
