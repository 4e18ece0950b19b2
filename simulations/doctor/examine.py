"""The whole examination: this machine, and what a scenario needs of it."""

from collections.abc import Sequence

from joblib import cpu_count  # heeds what a scheduler or a container allows this process
from rich.console import Console

from models.core.config import TaskConfig, read
from models.core.errors import UserError
from server.config import ServerConfig
from server.errors import RunFailedError
from server.strategy import cohort_size
from simulations.config import SimulationConfig, resolve
from simulations.doctor.finding import Finding, tabulate
from simulations.doctor.gpus import Graphics, gpu_findings, graphics
from simulations.doctor.memory import machine_findings, memory
from simulations.doctor.one_client import measure
from simulations.doctor.packages import package_findings
from simulations.doctor.places import place_findings
from simulations.doctor.proposal import proposal_findings, propose
from simulations.scenario import load_scenario


def examine(scenario: str | None, overrides: Sequence[str], console: Console) -> bool:
    """Print what there is, and what to set for the scenario; return whether nothing makes runs fail.

    Raises UserError for a scenario that is not there, and for keys and values that do not fit.
    """
    run_config = load_scenario(scenario, overrides) if scenario else None
    seen = graphics()
    rows = [*machine_findings(memory()), *gpu_findings(seen), *package_findings(), *place_findings()]
    console.print(tabulate(rows))
    if run_config:
        with console.status("one client is trained"):
            needs = list(_needs(run_config, seen))
        console.print(tabulate(needs))
        rows += needs
    wrong = sum(each.level == "wrong" for each in rows)
    console.print(f"{wrong} of {len(rows)} are wrong" if wrong else "Nothing is wrong.", soft_wrap=True)
    return not wrong


def _needs(run_config: dict[str, bool | int | float | str], seen: Graphics) -> list[Finding]:
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
        gpu_memory=min((gpu.memory for gpu in seen.gpus), default=0),
        num_gpus=len(seen.gpus),
    )
    return proposal_findings(cost, found)
