"""Workers that several runs of one process share: the next run finds them warm."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

from models.core.config import Value
from models.core.errors import UserError
from models.core.user_code import user_folder
from simulations.config import ResolvedSimulation
from simulations.runtime.cluster_code import users_modules
from simulations.runtime.ray_session import Session, kept_session, log_of

if TYPE_CHECKING:
    from server.plan import Plan
    from simulations.runtime.ray_workers import RayWorkers


class Workers:
    """Ray and its workers for the runs of a notebook or a script, which else start their own.

    They keep torch, the parsed dataset and the task of the last run. `polyfed.run(..., workers=workers)` runs
    on them: started with the first run, and anew where a run asks for another number of them, for another
    share of a GPU, other threads or from another folder. They start anew, too, where a file of the user's
    code has changed. Between runs the process's environment is its own.

    Used in a `with` block, or closed by `close()`; a process that ends takes them with it.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._open = ExitStack()
        self._session: Session | None = None
        self._made_for: tuple[Any, ...] = ()
        self._code: dict[str, int] = {}
        self._in_use = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End Ray and the workers; the next run starts them again."""
        self._session = None
        self._open.close()

    @contextmanager
    def for_run(
        self, run_config: dict[str, Value], simulation: ResolvedSimulation
    ) -> "Iterator[Callable[[Plan], RayWorkers]]":
        """Give what returns the workers, turned to this run; where they cannot be, Ray is ended.

        Raises UserError while another thread runs on them.
        """
        if not self._in_use.acquire(blocking=False):
            raise UserError(
                "these workers run another run, in another thread: wait for it, or run with in_process=True"
            )
        try:
            with self._turned(run_config, simulation) as workers:
                yield workers
        finally:
            self._in_use.release()

    @contextmanager
    def _turned(
        self, run_config: dict[str, Value], simulation: ResolvedSimulation
    ) -> "Iterator[Callable[[Plan], RayWorkers]]":
        if self._session and self._session.workers.done() and self._session.workers.exception():
            self.close()  # Ray has not started, and this is another try
        made_for = (simulation, run_config["threads"], user_folder())
        if self._session and made_for != self._made_for:
            self.close()
        fresh = self._session is None
        if self._session is None:
            self._session = self._open.enter_context(kept_session(run_config, simulation))
            self._made_for = made_for
        session = self._session
        session.log = log_of(run_config)
        try:
            with session.at_work():
                yield lambda _: self._turned_to(run_config, session, fresh)
        finally:
            session.keep_output()
            if session.ended:  # the run failed before Ray had started
                self.close()

    def _turned_to(self, run_config: dict[str, Value], session: Session, fresh: bool) -> "RayWorkers":
        code = {name: file.stat().st_mtime_ns for name, file in users_modules().items() if file.exists()}
        try:
            workers = session.workers.result()
            if not fresh:
                unchanged = all(self._code.get(name, stamp) == stamp for name, stamp in code.items())
                (workers.begin if unchanged else workers.restart)(run_config)
        except BaseException:
            self.close()
            raise
        self._code = code
        return workers
