"""Ends whatever a run has started, however the run itself ends: `python reaper.py FOLDER`.

A process of its own, in a session of its own. It waits for its standard input to close, which the
operating system sees to when the process at the other end is gone, be it by Ctrl-C, a signal or kill -9.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator

import psutil

MARK = "POLYFED_RUN_FOLDER"
"""Environment variable that everything a run starts inherits; it holds the run's temporary folder."""
GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""
PATIENCE = 10.0
"""Seconds that SIGKILL gets; a process in the middle of a system call outlives it for a while."""


def marked(folder: str) -> Iterator[psutil.Process]:
    """Yield the living processes that a run in `folder` has started.

    Ray's daemons leave their parent's process group and session, so that the mark in the environment
    is the one thing they share. Some of them write their title over it: those are found as children.
    """
    for process in psutil.process_iter(["environ", "status"]):
        if (process.info["environ"] or {}).get(MARK) == folder:
            yield process
            try:
                yield from process.children(recursive=True)
            except psutil.NoSuchProcess:
                continue


def end(folder: str) -> bool:
    """End every process of the run in `folder`, politely at first; return whether none is left."""
    start = time.monotonic()
    known: set[psutil.Process] = set()
    while time.monotonic() - start < GRACE + PATIENCE:
        new = set(marked(folder)) - known  # a daemon may have restarted a child meanwhile
        known |= new
        alive = {process for process in known if _is_alive(process)}
        if not alive:
            return True
        force = time.monotonic() - start > GRACE
        for process in alive if force else new:
            try:
                process.kill() if force else process.terminate()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(alive, timeout=0.1)
    return False


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main(folder: str) -> int:
    """Wait for standard input to close, then end the run in `folder` and remove the folder."""
    sys.stdin.buffer.read()
    ended = end(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return 0 if ended and not os.path.exists(folder) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
