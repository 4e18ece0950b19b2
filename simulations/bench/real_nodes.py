"""A SuperLink and SuperNodes on the loopback, and when they do what."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import tomli_w

from models.core.config import Value
from server.errors import RunFailedError
from simulations.runtime import reaper
from simulations.runtime.flower_programs import POLLING, QUIET, free_port, scripts
from simulations.runtime.superlink import COLOURS

STARTUP = 60.0
"""Seconds that the SuperLink gets until it listens."""
MOMENTS = {
    "asked": "Receiving: train message",
    "started": "Start `ClientApp` Loading",
    "answered": "Sending: train message",
}
"""Moment of a node's turn -> what its log says then."""


@dataclass(frozen=True)
class Moment:
    """A line of a node's log that says where a round is."""

    at: float
    """Time of day, in seconds."""
    node: int
    what: str
    """One of MOMENTS."""


@dataclass(frozen=True)
class Federation:
    """Servers that run apps."""

    folder: Path
    environment: Mapping[str, str]
    moments: list[Moment]
    """Of all nodes, in no order."""

    def run(self, app: Path, run_config: Mapping[str, Value]) -> str:
        """Run an app to its end and return what Flower says meanwhile."""
        file = self.folder / "run-config.toml"
        file.write_text(tomli_w.dumps(run_config), encoding="utf-8")
        command = [str(scripts() / "flwr"), "run", str(app), "here", "--stream", "--run-config", str(file)]
        ended = subprocess.run(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        return COLOURS.sub("", ended.stdout)

    def cpu_seconds(self) -> float:
        """Return what all processes have used of processors, and those that they have seen end."""
        total = 0.0
        for process in reaper.marked(str(self.folder)):
            with suppress(psutil.Error):  # it has just ended
                used = process.cpu_times()
                total += used.user + used.system + used.children_user + used.children_system
        return total


@contextmanager
def real_nodes(num_nodes: int, node_config: str = "") -> Iterator[Federation]:
    """Start a SuperLink and SuperNodes, each with a FLWR_HOME of its own; nothing of them is left."""
    with reaper.watched_folder() as folder:
        moments: list[Moment] = []
        port = free_port()
        address = f"127.0.0.1:{port}"
        link = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
        link += ["--disable-runtime-dependency-installation"]
        _start(folder, "link", link, lambda line: None)
        _wait_for(port)
        for number in range(num_nodes):
            given = f"partition-id={number} num-partitions={num_nodes} {node_config}"
            node = ["flower-supernode", "--insecure", "--superlink", address, "--host", "127.0.0.1"]
            node += ["--port", str(free_port()), "--node-config", given.strip()]
            _start(folder, f"node-{number}", node, _noting(moments, number))
        environment = _environment(folder, "user")
        home = Path(environment["FLWR_HOME"])
        home.mkdir()
        superlink = {"superlink": {"here": {"address": address, "insecure": True}}}
        (home / "config.toml").write_text(tomli_w.dumps(superlink), encoding="utf-8")
        yield Federation(folder, environment, moments)


def _wait_for(port: int) -> None:
    """Return once something listens on a port of the loopback; RunFailedError where that takes too long."""
    deadline = time.monotonic() + STARTUP
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RunFailedError("the SuperLink did not start")


def _noting(moments: list[Moment], node: int) -> Callable[[str], None]:
    def note(line: str) -> None:
        for what, said in MOMENTS.items():
            if said in line:
                moments.append(Moment(time.time(), node, what))

    return note


def _start(folder: Path, name: str, command: list[str], heed: Callable[[str], object]) -> None:
    """Start a server in a folder of its own; each line that it says is heeded as it comes."""
    place = folder / name
    place.mkdir()
    process = subprocess.Popen(
        [scripts() / command[0], *command[1:]],
        cwd=place,
        env=_environment(folder, name),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )

    def read() -> None:
        with process, (folder / f"{name}.log").open("w", encoding="utf-8") as log:
            assert process.stdout is not None  # a pipe
            for line in process.stdout:
                log.write(line)
                log.flush()
                heed(COLOURS.sub("", line))

    threading.Thread(target=read, daemon=True).start()


def _environment(folder: Path, name: str) -> dict[str, str]:
    return {
        **os.environ,
        reaper.MARK: str(folder),
        "PATH": f"{scripts()}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(folder / f"{name}-home"),
        **QUIET,
        **POLLING,
        "FLWR_LOG_LEVEL": "DEBUG",  # says when a ClientApp is loaded
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
