"""A process for each run of many: forked from one that is warm where the system can, else started anew."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from simulations.experiments.fork_server import OF_TASK, Order
from simulations.runtime import reaper

FORKS = sys.platform == "linux"
"""Whether processes are forked: elsewhere the libraries of the system do not work in a forked one."""
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SAID = "fork-server.log"


class Process(Protocol):
    """A run's process."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the signal that killed it, below 0; None while it runs."""


class Processes(Protocol):
    """Where runs get their processes from."""

    def start(self, words: Sequence[str], log: Path) -> Process:
        """Start `polyfed` with these words; the file takes what it prints."""

    def wait(self, seconds: float) -> None:
        """Wait, at most so long, for one of them to end."""


@contextmanager
def processes(tasks: Iterable[str] = ()) -> Iterator[Processes]:
    """Give runs their processes; whatever way this ends, none of them is left.

    Each is of its own session, as a Ctrl-C in the terminal is its caller's to act on, and computes on one
    thread. `tasks` name what most of them learn.
    """
    with reaper.watched_folder() as mark:
        environment = {**os.environ, reaper.MARK: str(mark), **dict.fromkeys(POOLS, "1")}
        if not FORKS:
            yield Started(environment)
            return
        modules = {name for task in tasks for name in OF_TASK.get(task, ())}
        forked = Forked(environment, sorted(modules), mark)
        try:
            yield forked
        finally:
            forked.close()


class Started:
    """Starts a Python for each run, which imports all that it needs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, words: Sequence[str], log: Path) -> Process:
        """Start one."""
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "simulations.cli", *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._running.append(process)
        return process

    def wait(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
        self._running = [process for process in self._running if process.poll() is None]


class Fork:
    """A process that the server has forked, or will have."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.returncode: int | None = None


class Forked:
    """Has each run forked from a process that has imported what runs need.

    That process is started with the first run, and again where it died: the runs of that moment fail.
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str], mark: Path) -> None:
        self.environment = environment
        self.modules = modules
        self.mark = mark
        self._forks: list[Fork] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: Connection

    def start(self, words: Sequence[str], log: Path) -> Process:
        """Have one forked."""
        if self._server is None:
            self._server = self._start_server()
        log.write_bytes(b"")  # nothing of an earlier run is taken for this one's
        self._forks.append(Fork(log))
        with suppress(OSError):  # the server is gone, which wait() tells
            self._connection.send(tuple(Order(len(self._forks) - 1, words, str(log))))
        return self._forks[-1]

    def wait(self, seconds: float) -> None:
        """Wait for the server's word."""
        if self._server is None:
            time.sleep(seconds)
            return
        try:
            while self._connection.poll(seconds):
                number, code = self._connection.recv()
                self._forks[number].returncode = code
                seconds = 0
        except (EOFError, OSError):
            self._connection.close()
            self._tell_of_the_end(self._server)
            self._server = None

    def close(self) -> None:
        """End the server; what it has forked is left to whoever watches."""
        if self._server is not None:
            self._connection.close()
            self._server.kill()
            self._server.wait()

    def _start_server(self) -> subprocess.Popen[bytes]:
        self._connection, theirs = Pipe()
        said = self.mark / SAID
        command = [sys.executable, "-P", "-m", "simulations.experiments.fork_server", str(theirs.fileno())]
        with theirs, said.open("w", encoding="utf-8") as file:
            return subprocess.Popen(
                [*command, str(said), *self.modules],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def _tell_of_the_end(self, server: subprocess.Popen[bytes]) -> None:
        """End the processes whose end nobody can tell any more, and say why in what they have printed."""
        code = server.wait()
        reaper.end(str(self.mark))
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = (self.mark / SAID).read_text(errors="replace", encoding="utf-8")
        for fork in self._forks:
            if fork.returncode is None:
                fork.returncode = code
                with fork.log.open("a", encoding="utf-8") as file:
                    file.write(f"{said}failed: the process from which runs are forked {how}\n")
