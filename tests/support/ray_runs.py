"""Runs on Ray for several tests, in a process beside them that keeps Ray and its workers."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from places import SUPPORT

from models.core.config import Value

RunOnRay = Callable[[dict[str, Value], int], None]
"""Runs a config on so many workers; it must go to its end."""
PATIENCE = 300.0
"""Seconds that a run may take."""


@contextmanager
def ray_runs() -> Iterator[RunOnRay]:
    """Give what runs a config on Ray; workers stay while no run asks for another number of them."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        subprocess.Popen(  # which ends, and what it has started, as nobody can ask it any more
            [sys.executable, str(SUPPORT / "on_ray.py")],
            env={**os.environ, "PYTHONPATH": str(SUPPORT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            encoding="utf-8",
        ) as process,
    ):

        def run(run_config: dict[str, Value], num_workers: int) -> None:
            assert process.stdin
            assert process.stdout
            limit = threading.Timer(PATIENCE, process.kill)
            limit.start()
            print(json.dumps([run_config, num_workers]), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            limit.cancel()
            said.seek(0)
            error = json.loads(answer) if answer else f"the process is gone\n{said.read()}"
            assert not error, error

        yield run
