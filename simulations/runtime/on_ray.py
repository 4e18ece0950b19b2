"""Runs the app on Ray directly: the ServerApp in this process, the clients in workers of Ray's."""

from collections.abc import Callable
from concurrent.futures import Future

from models.core.config import TaskConfig, Value, read
from server.plan import Plan
from simulations.runtime.in_process import run_server
from simulations.runtime.ray_grid import RayGrid
from simulations.runtime.ray_workers import RayWorkers


def run_on_ray(run_config: dict[str, Value], plan: Plan, started: Future[RayWorkers]) -> None:
    """Run to the end on these workers; whatever ends the run is raised."""
    stacked = read(TaskConfig, run_config).engine == "stacked"
    run_server(RayGrid(started.result(), stacked=stacked, size_of=_sizes(plan)), run_config)


def _sizes(plan: Plan) -> Callable[[int], int] | None:
    """Return what says how many examples a client holds; None where all of them hold as many."""
    if plan.task_config.examples_per_client:
        return None
    return lambda client: len(plan.partition[client])
