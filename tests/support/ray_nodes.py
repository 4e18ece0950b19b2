"""Two nodes of a Ray cluster on this machine's loopback, each in processes of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from flower_processes import free_port

HEAD, OTHER = "127.0.0.2", "127.0.0.3"
"""Linux' loopback has both; 127.0.0.1 itself Ray would take for the machine's address in the network."""
PATIENCE = 90.0


@dataclass(frozen=True)
class Nodes:
    """A cluster of two nodes with a CPU each, and where it is."""

    address: str
    other: subprocess.Popen[bytes]
    """The node that is not the head."""

    def kill_the_other(self) -> None:
        """Kill a node as a power cut would: all of its processes at once."""
        processes = psutil.Process(self.other.pid).children(recursive=True)
        for process in [psutil.Process(self.other.pid), *processes]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@contextmanager
def two_nodes() -> Iterator[Nodes]:
    """Start the cluster; afterwards it is gone."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray's sockets lie in it
    address = f"{HEAD}:{free_port()}"
    head = _node(folder, "--head", f"--port={address.rpartition(':')[2]}", f"--temp-dir={folder}", at=HEAD)
    other = None
    try:
        _wait_for(folder, 1)
        other = _node(folder, f"--address={address}", at=OTHER)
        _wait_for(folder, 2)
        yield Nodes(address, other)
    finally:
        for node in filter(None, (other, head)):
            _end(node)
        shutil.rmtree(folder, ignore_errors=True)


def _node(folder: Path, *options: str, at: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("ray")), "start", *options, f"--node-ip-address={at}"]
    command += [
        "--num-cpus=1",
        "--num-gpus=0",
        "--object-store-memory=200000000",
        "--disable-usage-stats",
        "--block",
    ]
    environment = {
        **os.environ,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        "RAY_raylet_start_wait_time_s": "120",
    }
    with (folder / "started.log").open("ab") as said:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)


def _wait_for(folder: Path, nodes: int) -> None:
    log, until = folder / "started.log", time.monotonic() + PATIENCE
    while log.read_text(encoding="utf-8", errors="replace").count("Ray runtime started") < nodes:
        if time.monotonic() > until:
            raise TimeoutError(log.read_text(encoding="utf-8", errors="replace"))
        time.sleep(0.1)


def _end(node: subprocess.Popen[bytes]) -> None:
    processes = []
    with suppress(psutil.NoSuchProcess):
        processes = psutil.Process(node.pid).children(recursive=True)
    node.terminate()
    with suppress(subprocess.TimeoutExpired):
        node.wait(20)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.kill()
    node.wait()
