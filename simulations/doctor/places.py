"""Ports and folders that runs need."""

import os
import shutil
import socket
import tempfile
import tomllib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import psutil

from models.core.errors import UserError
from models.data.cache import VARIABLE, cache_folder
from simulations.doctor.finding import Finding, in_bytes
from simulations.runtime.cluster_checks import check_address, knock

LOOPBACK = "127.0.0.1"
PORTS = {
    39091: "the SuperLink that plain `flwr run` starts",
    9091: "a SuperLink, towards its ServerApps",
    9092: "a SuperLink, towards its SuperNodes",
    9093: "a SuperLink, towards `flwr run`",
    6379: "`ray start --head`",
}
"""Ports that Flower and Ray take unless told otherwise. `polyfed run` takes free ones."""
LEAST_DISK, LITTLE_DISK = 200 << 20, 2 << 30
"""Bytes below which a run cannot write what it must, and below which one with large models may not."""


def place_findings() -> list[Finding]:
    """Look at the loopback, and at the folders that a run from the current folder writes to."""
    folders = {
        "runs": Path("runs").absolute(),
        "temporary files": Path(tempfile.gettempdir()),
        "home": Path.home() / ".polyfed",
    }
    return [
        loopback(),
        ports({port: owner for port in PORTS if (owner := _owner(port)) is not None}),
        *(disk(name, folder) for name, folder in folders.items()),
        *parsed_datasets(),
        flower_home(os.environ.get("FLWR_HOME"), Path.home()),
        *ray_address(os.environ.get("RAY_ADDRESS", "")),
    ]


def loopback(host: str = LOOPBACK) -> Finding:
    """Listen on a port of the loopback, and connect to it, as the processes of a run do."""
    try:
        with closing(socket.create_server((host, 0))) as server:
            address = server.getsockname()[:2]
            socket.create_connection(address, timeout=5).close()
    except OSError as error:
        return Finding(
            "loopback",
            f"no process can be reached on {host} ({error})",
            "wrong",
            f"let processes listen on {host}; until then use --in-process",
        )
    return Finding("loopback", f"processes can listen on {host}")


def ports(taken: dict[int, str]) -> Finding:
    """Say which of the fixed ports are taken; `taken` is port -> who listens there, "" where nobody knows."""
    if not taken:
        return Finding("ports", f"{', '.join(map(str, PORTS))} are free")
    said = [f"{port}, of {PORTS[port]}, is taken{f' by {by}' if by else ''}" for port, by in taken.items()]
    remedy = "it hinders no `polyfed run`; end it, or choose other ports, before you start a second one"
    if 39091 in taken:
        remedy = "end that SuperLink before `flwr run` in another folder: it keeps the folder and code it has"
    return Finding("ports", "; ".join(said), "note", remedy)


def disk(name: str, folder: Path) -> Finding:
    """Say how much room there is in a folder, or where it would be made."""
    subject = f"disk, {name}"
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        return Finding(subject, f"{there} is no folder", "wrong", f"move {there} away")
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            subject, f"{there} cannot be written to", "wrong", f"chmod u+wx {there}, or use another"
        )
    free = shutil.disk_usage(there).free
    text = f"{in_bytes(free)} free in {folder}"
    if free < LEAST_DISK:
        return Finding(subject, text, "wrong", "make room: polyfed clean RUN ... removes checkpoints")
    if free < LITTLE_DISK:
        return Finding(subject, text, "note", "keep-checkpoints = 1 and polyfed clean RUN ... take less")
    return Finding(subject, text)


def flower_home(given: str | None, home: Path) -> Finding:
    """Say what is odd about FLWR_HOME, which plain `flwr run` uses; `polyfed run` has one of its own."""
    folder = Path(given) if given else home / ".flwr"
    subject, what = "FLWR_HOME", f"{folder}" if given else f"not set, so {folder}"
    if given and not folder.is_absolute():
        text = f"{given} is no absolute folder, so it is another one in each folder"
        return Finding(subject, text, "note", "export FLWR_HOME as an absolute folder")
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(subject, f"{what}, cannot be written to", "note", "set FLWR_HOME to a folder of yours")
    config = folder / "config.toml"
    try:
        tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        return Finding(subject, f"{config} cannot be read ({error})", "note", "mend it, or remove it")
    return Finding(subject, what)


def parsed_datasets() -> Iterable[Finding]:
    """Say how much room there is where parsed datasets are kept, if they are."""
    try:
        folder = cache_folder()
    except UserError as error:
        yield Finding(
            "POLYFED_CACHE", str(error), "wrong", f"export {VARIABLE}=/absolute/folder, or unset it"
        )
    else:
        if folder:
            yield disk("parsed datasets", folder)


def ray_address(given: str) -> Iterable[Finding]:
    """Say that a cluster is named in the environment, and whether one answers there."""
    if given:
        try:
            check_address(given)
            if given != "auto":
                knock(given)
        except UserError as error:
            yield Finding(
                "RAY_ADDRESS", str(error), "wrong", "unset RAY_ADDRESS, or name a cluster that runs"
            )
        else:
            what = f"runs on Ray are on the cluster at {given}"
            yield Finding("RAY_ADDRESS", what, "note", "unset RAY_ADDRESS for a Ray of each run's own")


def _owner(port: int) -> str | None:
    """Return who listens on a port of the loopback, "" where that cannot be told; None where nobody does."""
    try:
        with closing(socket.socket()) as probe:
            # As servers do, so that a port which was used a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
        return None
    except OSError:
        pass
    try:
        listening = [s.pid for s in psutil.net_connections("tcp") if s.status == psutil.CONN_LISTEN
                     and s.laddr.port == port and s.pid]  # fmt: skip
        process = psutil.Process(listening[0])
        return f"process {process.pid} ({process.name()}) in {process.cwd()}"
    except (psutil.Error, IndexError, OSError):
        return ""
