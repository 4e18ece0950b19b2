"""A Flower SuperLink of our own, in a temporary folder that ends with it."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from models.core.user_code import FOLDER, user_folder
from server.provenance import SOURCE, source
from simulations.runtime import reaper
from simulations.runtime.flower_programs import POLLING, QUIET, free_port, scripts

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Terminal colours, which Flower writes into files too."""
RAYS_TIP = "ignore:Tip:FutureWarning:ray._private.worker"
"""A filter, as of `python -W`, for what Ray says about its own future whenever it starts."""
STARTUP = 60.0
"""Seconds that the SuperLink gets until it listens; it takes two."""


ENDING = 2.0
"""Seconds that its process gets to end once it no longer answers."""


class SuperLink:
    """A SuperLink that listens, or soon will, on a port of the loopback."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder = folder
        self.port = free_port()
        # Behind the gate, as the loopback is open to all users of the machine.
        command = [sys.executable, "-m", "simulations.deploy.gated", "flower-superlink", "--insecure"]
        command += ["--simulation", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--disable-runtime-dependency-installation"]
        # Ray looks for modules in the SuperLink's working folder before it looks in the app.
        (folder / "empty").mkdir()
        with (folder / "superlink.log").open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder / "empty",
                env=_environment(folder, threads),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is ours to act on
            )

    def wait_until_ready(self) -> str:
        """Return its URL once it listens; ChildProcessError where it ends instead."""
        deadline = time.monotonic() + STARTUP
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ChildProcessError("the SuperLink did not start")
            time.sleep(0.05)
        return f"http://127.0.0.1:{self.port}"

    def ending(self) -> str:
        """Return how its process ended, and what it said last where it ended itself."""
        try:
            code = self.process.wait(ENDING)
        except subprocess.TimeoutExpired:
            return f"does not answer; its log ends with: {self.last_words()}"
        if code < 0:  # the words are those of the processes that it has started
            return f"was killed ({signal.Signals(-code).name})"
        return f"ended with code {code}: {self.last_words()}"

    def last_words(self) -> str:
        """Return the last line of its log that is not about a request."""
        lines = self.log().splitlines()
        last = next((line for line in reversed(lines) if line.strip() and "uvicorn.access" not in line), "")
        return " ".join(last.split())

    def log(self) -> str:
        """Return all that it has said."""
        return COLOURS.sub("", (self.folder / "superlink.log").read_text(errors="replace", encoding="utf-8"))

    def _listens(self) -> bool:
        # What answers on the port may be another run's SuperLink, so ask whose socket it is.
        try:
            sockets = psutil.Process(self.process.pid).net_connections()
        except psutil.Error:
            return False
        return any(s.status == psutil.CONN_LISTEN and s.laddr.port == self.port for s in sockets)


@contextmanager
def own_superlink(threads: int) -> Iterator[SuperLink]:
    """Start a SuperLink whose workers compute with `threads` CPU threads each.

    Afterwards neither the temporary folder nor any process that was started from it is left, even
    where this process is killed meanwhile.
    """
    link = None
    try:
        with reaper.watched_folder() as folder:
            _bypass_proxy()
            link = SuperLink(folder, threads)
            yield link
    finally:
        if link is not None:
            link.process.wait()


def _environment(folder: Path, threads: int) -> dict[str, str]:
    """Return the environment of the SuperLink, which all processes of the run inherit."""
    environment = dict(os.environ)
    environment.pop("RAY_ADDRESS", None)  # a cluster that is not this run's alone
    # Relative entries would be looked for in the SuperLink's working folder.
    python_path = [os.path.abspath(entry) for entry in _entries(environment.get("PYTHONPATH"))]
    environment |= {
        reaper.MARK: str(folder),
        SOURCE: str(source()),
        FOLDER: str(user_folder()),
        "FLWR_HOME": str(folder / "flwr"),
        "RAY_TMPDIR": str(folder),
        # Flower starts flower-superexec and flwr-simulation by name.
        "PATH": os.pathsep.join([str(scripts()), *_entries(environment.get("PATH"))]),
        "PYTHONPATH": os.pathsep.join(python_path),
        **QUIET,
        **POLLING,
        "RAY_USAGE_STATS_ENABLED": "0",
        # In spite of its name it decides on Linux too whether Ray listens beyond the loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # The workers that Ray starts ahead lack the environment that Flower wants, and are never used.
        "RAY_prestart_worker_first_driver": "0",
    }
    # A tip to Ray's developers, which would greet every user of polyfed; what a user asks for comes after.
    asked = os.environ.get("PYTHONWARNINGS")
    environment["PYTHONWARNINGS"] = ",".join([RAYS_TIP, *([asked] if asked else [])])
    for pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[pool] = str(threads)
    return environment


def _bypass_proxy() -> None:
    """Keep this process and its children from asking a proxy for what is on the loopback."""
    proxies = urllib.request.getproxies_environment()
    bypassed = [host for host in proxies.get("no", "").split(",") if host]
    if proxies.keys() & {"http", "all"} and "127.0.0.1" not in bypassed:
        os.environ["no_proxy"] = ",".join([*bypassed, "127.0.0.1"])


def _entries(paths: str | None) -> list[str]:
    return [entry for entry in (paths or "").split(os.pathsep) if entry]
