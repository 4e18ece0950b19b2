"""Runs the app on Ray directly: the ServerApp in this process, the clients in workers of Ray's."""

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from models.core.config import Value
from server.plan import Plan
from simulations.runtime.in_process import run_server
from simulations.runtime.ray_grid import RayGrid
from simulations.runtime.ray_workers import RayWorkers


def run_on_ray(run_config: dict[str, Value], plan: Plan, workers: RayWorkers) -> None:
    """Run to the end on these workers; whatever ends the run is raised."""
    with _remembered_interrupts() as check, _set_apart():
        grid = RayGrid(
            workers,
            stacked=plan.engine.name == "stacked",
            stack_size=plan.task_config.stack_size,
            size_of=_sizes(plan),
            check=check,
        )
        run_server(grid, run_config)


@contextmanager
def _set_apart() -> Iterator[None]:
    """Keep what is in memory by now out of Python's search for garbage, which takes as long as a round."""
    if gc.get_freeze_count():
        yield  # somebody else does
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _remembered_interrupts() -> Iterator[Callable[[], None]]:
    """Give what raises KeyboardInterrupt once Ctrl-C was pressed.

    Python drops an exception that is raised while a library calls back or an object is removed; the run would
    then go on as if nobody had asked it to stop.
    """
    pressed = threading.Event()

    def check() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    def note(_: int, __: FrameType | None) -> None:
        pressed.set()
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield check  # somebody else hears it
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _sizes(plan: Plan) -> Callable[[int], int] | None:
    """Return what says how many examples a client holds; None where all of them hold as many."""
    if plan.task_config.examples_per_client:
        return None
    return lambda client: len(plan.partition[client])
