"""Ray for one run: started in the background while the run is planned, and gone with it."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from models.core.config import Value
from models.core.errors import UserError
from models.core.user_code import FOLDER, user_folder
from server.run_schema import WORKERS_LOG
from simulations.config import ResolvedSimulation
from simulations.runtime import reaper

HELPERS = ("start_monitor", "start_log_monitor", "start_api_server")
"""Methods by which Ray starts its autoscaler, its forwarder of logs and its dashboard's server."""
START = 20.0
"""Seconds that the start of Ray gets to end when nobody waits for it any more; it takes two."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that say how many threads a worker computes in."""
SET_BY_RAY = ("PYTHONBREAKPOINT", "RAY_CLIENT_MODE", "GRPC_VERBOSITY")
"""Environment variables that Ray sets in this process; the first one takes breakpoint() from its user."""
IN_USE = threading.Lock()
"""Held by the thread that runs on Ray."""

if TYPE_CHECKING:
    from simulations.runtime.ray_workers import RayWorkers


@dataclass
class Session:
    """Ray, its workers and its folder, for one run after the other."""

    folder: Path
    """Ray's temporary folder."""
    log: Path
    """Where what the workers print is kept: in the folder of the run that they work for."""
    _ray: "_Ray"
    _kept: dict[Path, int] = field(default_factory=dict)

    @property
    def workers(self) -> "Future[RayWorkers]":
        """The workers, as soon as they are on their way."""
        return self._ray.started

    @property
    def ended(self) -> bool:
        """Whether Ray was ended; it starts no more."""
        return self._ray.over.is_set()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Set the environment of Ray's processes for as long as a run takes; with the first one Ray starts.

        Between runs this process, and what it starts, have an environment without a trace of ours.
        """
        with _environment(self.folder, int(self._ray.run_config["threads"])):
            if self._ray.ident is None:
                self._ray.start()
            try:
                yield
            finally:
                if not self.workers.done():  # it reads the environment still
                    self.end()

    def let_go(self) -> None:
        """Let Ray begin to end, which takes a second or two; `end` waits until it has."""
        self._ray.over.set()

    def end(self) -> None:
        """End Ray, or its start; a second time does nothing."""
        self._ray.over.set()
        if self._ray.ident is None:
            return
        # Where the run cannot be, or was interrupted, it may be starting still: without its processes it
        # would look for them for half a minute, longer than it takes to start.
        if not wait([self._ray.started], START).done:
            reaper.end(str(self.folder))
        self._ray.join()
        self.keep_output()

    def keep_output(self) -> None:
        """Append to the log what the workers have printed since the last call, if anything."""
        said: list[str] = []
        for file in sorted(self.folder.glob("session_2*/logs/worker-*")):
            lines = file.read_text("utf-8", "replace").splitlines()
            said += lines[self._kept.get(file, 0) :]
            self._kept[file] = len(lines)
        said = [line for line in said if not line.startswith((":job_id:", ":actor_name:"))]  # by Ray
        if said and self.log.parent.is_dir():
            with self.log.open("a", encoding="utf-8") as log:
                log.writelines(f"{line}\n" for line in said)


@contextmanager
def ray_session(run_config: Mapping[str, Value], simulation: ResolvedSimulation) -> Iterator[Session]:
    """Start Ray and its workers for one run, as `kept_session` does for several."""
    with kept_session(run_config, simulation) as session, session.at_work():
        yield session


@contextmanager
def kept_session(run_config: Mapping[str, Value], simulation: ResolvedSimulation) -> Iterator[Session]:
    """Give Ray on this machine alone, and its workers, which start with the first run.

    It listens on the loopback only. Afterwards no process and no folder of it is left, even where this
    process is killed meanwhile. What the workers have printed is kept in the run's folder.

    Raises UserError where this process uses Ray already: it can have one only, and that is not ours to end.
    """
    with one_ray(), reaper.watched_folder() as folder:
        session = Session(folder, log_of(run_config), _Ray(dict(run_config), simulation, folder))
        try:
            yield session
        finally:
            session.end()


def log_of(run_config: Mapping[str, Value]) -> Path:
    """Return the file of a run's folder that holds what its workers printed."""
    return Path(str(run_config["run-dir"])) / WORKERS_LOG


@contextmanager
def one_ray() -> Iterator[None]:
    """Keep this process's Ray for one run.

    Raises UserError where somebody else has it: another thread, or the user's own code.
    """
    if not IN_USE.acquire(blocking=False):
        raise UserError(
            "this process runs on Ray already, in another thread or for polyfed.Workers, and a process has "
            "one Ray: wait for that run, give this one those workers, or run with in_process=True"
        )
    try:
        if (theirs := sys.modules.get("ray")) and theirs.is_initialized():
            raise UserError(
                "this process uses Ray already (ray.init), and a run on Ray starts its own: call "
                "ray.shutdown() first, or run with in_process=True"
            )
        yield
    finally:
        IN_USE.release()


class _Ray(threading.Thread):
    """Starts Ray, and stays until it is over: Linux ends its processes with the thread that began them."""

    def __init__(self, run_config: dict[str, Value], simulation: ResolvedSimulation, folder: Path) -> None:
        super().__init__(daemon=True)
        self.run_config, self.simulation, self.folder = run_config, simulation, folder
        self.started: Future[RayWorkers] = Future()
        self.over = threading.Event()

    def run(self) -> None:
        """Start Ray and the workers; wait; end them."""
        try:
            import ray  # takes a second, after which it may not be needed any more

            if self.over.is_set():
                raise CancelledError
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Tip:", FutureWarning)  # to Ray's own developers
                self._init()
            from simulations.runtime.ray_workers import RayWorkers

            workers = RayWorkers(self.run_config, self.simulation)
            workers.start()
        except BaseException as error:
            self.started.set_exception(error)
        else:
            self.started.set_result(workers)
            self.over.wait()
            with suppress(Exception):  # where Ray itself has died
                workers.end()
        with suppress(Exception):  # of what has been ended already, or could not be imported
            ray.shutdown()

    def _init(self) -> None:
        import ray
        from ray.job_config import JobConfig

        class Isolated(JobConfig):
            """Keeps this process's working folder off the workers' path, where Ray would put it first."""

            def _runtime_env_has_working_dir(self) -> bool:
                return True

        # Ray would say that signals are the main thread's, which is as it should be.
        logging.getLogger("ray").setLevel(logging.ERROR)
        with _without_helpers():
            ray.init(
                num_cpus=self.simulation.num_workers,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                job_config=Isolated(),
                _node_ip_address="127.0.0.1",
                _temp_dir=str(self.folder),
                # Bytes of an answer that comes by itself: by the object store it takes a few milliseconds.
                _system_config={"max_direct_call_object_size": 1_000_000},
            )


@contextmanager
def _without_helpers() -> Iterator[None]:
    """Let Ray start without what a run does not use: they take half of its start, and most of its end.

    Ray has no options for them. One that a later version calls otherwise is started as before.
    """
    from ray._private.node import Node

    def leave_out(node: Node, *_: Any, **__: Any) -> None:
        node._webui_url = None

    with ExitStack() as patches:
        for name in HELPERS:
            if hasattr(Node, name):
                patches.enter_context(patch.object(Node, name, leave_out))
        yield


@contextmanager
def _environment(folder: Path, threads: int) -> Iterator[None]:
    """Set what Ray and its workers find in their environment."""
    ours = {
        reaper.MARK: str(folder),
        FOLDER: str(user_folder()),
        "RAY_USAGE_STATS_ENABLED": "0",
        # In spite of its name it decides on Linux too whether Ray listens beyond the loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        **dict.fromkeys(THREADS, str(threads)),
    }
    # Nothing else is touched, as other threads see it, too.
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", *SET_BY_RAY, *ours)}
    os.environ.pop("RAY_ADDRESS", None)  # a cluster, and this Ray is the run's alone
    os.environ |= ours
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
