"""A command line of Flower with its environment: shown as a shell takes it, and started."""

import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from models.core.errors import UserError
from models.core.user_code import FOLDER
from simulations.deploy.folder import Folder, Running
from simulations.runtime.flower_programs import POLLING, QUIET, scripts

LOOPBACK = ("localhost", "127.0.0.1", "::1")
STARTUP = 60.0
"""Seconds that a program in the background gets until it serves."""


@dataclass(frozen=True)
class Program:
    """What is run, where, and which variables it gets."""

    arguments: tuple[str, ...]
    """The command."""
    variables: dict[str, str]
    """Variables beside those of this process."""
    folder: Path
    """Its working folder."""

    def shown(self) -> str:
        """Return a line that does the same in a shell."""
        variables = [f"{name}={_quoted(name, value)}" for name, value in self.variables.items()]
        return f"cd {shlex.quote(str(self.folder))} && {' '.join([*variables, shlex.join(self.arguments)])}"

    def become(self) -> NoReturn:
        """Replace this process by the program, which so keeps its number, terminal and signals."""
        os.chdir(self.folder)
        os.umask(0o077)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(self.arguments[0], self.arguments, {**os.environ, **self.variables})


def _quoted(name: str, value: str) -> str:
    """Return a variable's value for a shell, where the present PATH goes by its name."""
    rest = f"{os.pathsep}{os.environ.get('PATH')}"
    if name == "PATH" and value.endswith(rest):
        return f'{shlex.quote(value.removesuffix(rest))}{os.pathsep}"$PATH"'
    return shlex.quote(value)


def flower(name: str, arguments: list[str], folder: Folder, **variables: str) -> Program:
    """Return one of Flower's servers behind polyfed's gate."""
    command = (sys.executable, "-m", "simulations.deploy.gated", name, *arguments)
    environment = {**_environment(folder), FOLDER: str(folder.empty), **POLLING, **variables}
    return Program(command, environment, folder.empty)


def flwr(arguments: list[str], folder: Folder) -> Program:
    """Return a call of Flower's own command line, to the SuperLink of a folder."""
    return Program((str(scripts() / "flwr"), *arguments), _environment(folder), folder.empty)


def in_background(folder: Folder, is_up: Callable[[Running, Folder], bool]) -> int:
    """Start this very command again without --background, and return its process once it serves.

    Raises UserError with its last words where it ends instead.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--background"]
    with folder.log.open("a", encoding="utf-8") as log:
        begin = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "simulations.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + STARTUP
    while not ((running := folder.remembered()) and running.pid == process.pid and is_up(running, folder)):
        if process.poll() is not None or time.monotonic() > deadline:
            with folder.log.open(encoding="utf-8", errors="replace") as log:
                log.seek(begin)
                words = [line.strip() for line in log if line.strip()]
            process.terminate()
            raise UserError(f"it did not start; {folder.log} ends with: {words[-1] if words else 'nothing'}")
        time.sleep(0.1)
    process.returncode = 0  # nobody waits for it any more, of which Popen would warn
    return process.pid


def _environment(folder: Folder) -> dict[str, str]:
    proxies = urllib.request.getproxies_environment()
    # The processes of a server talk to each other on this machine, which no proxy reaches.
    direct = {"no_proxy": ",".join(filter(None, [proxies.get("no"), *LOOPBACK]))} if proxies else {}
    return {
        **direct,
        "FLWR_HOME": str(folder.home),
        # Flower starts its own programs by name.
        "PATH": os.pathsep.join([str(scripts()), os.environ.get("PATH", os.defpath)]),
        **QUIET,
    }
