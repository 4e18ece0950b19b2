"""Runs the app through Flower's own runtime: a SuperLink of our own, its simulation, and Ray."""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

from models.config import Value
from models.errors import UserError
from simulations import reaper
from simulations.config import ResolvedSimulation
from simulations.staging import stage

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient

STARTUP = 60.0
"""Seconds that the SuperLink gets until it listens; it takes two."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LONGEST_RAY_ROOT = 23
"""Characters of the folder above ours: Ray appends 84 to it, and a Unix socket's path ends at 107."""
WRAPPERS = (
    "RuntimeError: Simulation Runtime crashed.",
    "RuntimeError: An error was encountered. Ending simulation.",
)
"""What Flower raises around the exception that says what went wrong."""


@dataclass(frozen=True)
class FlowerOutcome:
    """How Flower says that a run has ended; it calls a run whose every client failed completed."""

    status: str
    """ "completed", "failed" or "stopped"."""
    run_id: int | None
    """Flower's number of the run; None where it never began."""
    error: str
    """One line that says what went wrong; "" for a completed run."""


class _SuperLinkError(Exception):
    """The SuperLink did not start, ended, or refused the run; one line."""


def run_on_flower(
    run_config: Mapping[str, Value],
    simulation: ResolvedSimulation,
    *,
    on_tick: Callable[[], None] | None = None,
    verbose: bool = False,
    app: Path | None = None,
) -> FlowerOutcome:
    """Run the app to its end and leave neither a process nor a temporary folder behind.

    `run_config` overrides the app's defaults; its "run-dir" is an absolute folder, into which
    flower.log is written, and its "threads" are the CPU threads of a worker. `on_tick` is called
    about five times a second while the run is under way, `verbose` copies the log to standard error,
    and `app` is the folder of a Flower app, polyfed's own unless given.

    Everything listens on the loopback only, and nothing is shared with another run: not the ports,
    not FLWR_HOME, not the Ray cluster.
    """
    log_file = Path(str(run_config["run-dir"])) / "flower.log"
    with _scratch_folder() as folder:
        environment = _environment(folder, threads=int(run_config["threads"]))
        superlink = _SuperLink(folder, environment)
        try:
            # Staging and the imports of Flower are done while the SuperLink starts.
            client = superlink.client(app or stage(folder), environment)
"""
