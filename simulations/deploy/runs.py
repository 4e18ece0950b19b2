"""Runs a scenario on the nodes of a SuperLink, as `polyfed run` does on workers of its own."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from rich.console import Console

from models.core.config import Value
from models.core.errors import UserError
from server.run_schema import FLOWER_LOG, RunResult
from simulations.config import ResolvedSimulation
from simulations.deploy import asked
from simulations.deploy.folder import Folder
from simulations.runtime.control import Control, RefusedError
from simulations.runtime.flower import STOPPED, FlowerOutcome, error_line, follow
from simulations.runtime.staging import stage
from simulations.start import Start


@dataclass(frozen=True, kw_only=True)
class OnNodes(Start):
    """A run that is about to begin, or to go on, on the nodes of a SuperLink."""

    server: Folder
    """Folder of the SuperLink."""

    @staticmethod
    def of(start: Start, server: Folder) -> "OnNodes":
        """Return the same run, on the nodes of a server."""
        return OnNodes(**{each.name: getattr(start, each.name) for each in fields(Start)}, server=server)

    def launch(self, console: Console) -> AbstractContextManager[RunResult]:
        """Run to the end, and give how it ended."""
        from simulations.runtime.launch import launch

        def say(line: str) -> None:
            console.print(line, soft_wrap=True)

        return launch(
            self.run_config,
            runtime="flower",
            verbose=self.verbose,
            console=console,
            on_flower=lambda *given, **options: run_on_nodes(self.server, say, *given, **options),
        )

    def command(self) -> str:
        """Return the command that goes on with this run."""
        words = ["polyfed", "deploy", "run", str(self.server.path), "--resume", str(self.folder)]
        return shlex.join(words)


@contextmanager
def for_this_user_alone() -> Iterator[None]:
    """Make files meanwhile that nobody else reads, as a SuperLink makes those of its runs."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def check_up(server: Folder) -> None:
    """Raise UserError where no SuperLink of this folder answers."""
    running = asked.running(server)
    if not asked.is_up(running, server):
        raise UserError(f"the SuperLink on {running.address} does not answer: see {server.log}")


def run_on_nodes(
    server: Folder,
    say: Callable[[str], None],
    run_config: Mapping[str, Value],
    _: ResolvedSimulation,
    *,
    on_tick: Callable[[], None] | None = None,
    verbose: bool = False,
) -> FlowerOutcome:
    """Run polyfed's app on a SuperLink that is up, to the end; a Ctrl-C stops it there, too."""
    log_file = Path(str(run_config["run-dir"])) / FLOWER_LOG
    log_file.parent.mkdir(parents=True, exist_ok=True)
    running, run_id = asked.running(server), None
    try:
        with TemporaryDirectory() as folder, closing(Control(asked.client(running, server))) as control:
            run_id = control.start_run(stage(Path(folder)), run_config)
            say(f"run {run_id} on the SuperLink at {running.address}")
            try:
                tail = follow(control.log(run_id), log_file, on_tick, verbose)
            except KeyboardInterrupt:
                with suppress(httpx.HTTPError):  # it has ended meanwhile
                    control.stop_run(run_id)
                raise
            status, details = control.status(run_id)
    except RefusedError:
        return FlowerOutcome("failed", run_id, f"the SuperLink refused the run: see {server.log}")
    except httpx.TransportError as error:
        said = f"the SuperLink on {running.address} does not answer any more ({error}): see {server.log}"
        return FlowerOutcome("failed", run_id, said)
    if status == "completed":
        return FlowerOutcome(status, run_id, "")
    return FlowerOutcome(status, run_id, error_line(tail, details) or STOPPED, tail)
