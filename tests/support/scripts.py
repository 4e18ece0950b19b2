"""Runs a file of this folder in a process of its own, as what it starts leaves much behind."""

import os
import subprocess
import sys

from places import SUPPORT


def run_script(name: str, *arguments: object, timeout: float = 300) -> str:
    """Return what a script prints; it must succeed."""
    ended = subprocess.run(
        [sys.executable, str(SUPPORT / name), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
