"""Ends whatever a run has started, however the run itself ends: `python reaper.py FOLDER`.

A process of its own, in a session of its own. It waits for its standard input to close, which the
operating system sees to when the process at the other end is gone, be it by Ctrl-C, a signal or kill -9.
"""

import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

MARK = "POLYFED_RUN_FOLDER"
"""Environment variable that everything a run starts inherits; it holds the run's temporary folder."""
GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
PATIENCE = 10.0
"""Seconds that SIGKILL gets; a process in the middle of a system call outlives it for a while."""
GOODBYE = b"over"
"""What is written to the reaper by a run that has come to its end."""
LONGEST_ROOT = 18
"""Characters of the folder that holds ours: Ray's sockets add 85, and macOS allows 103 in all."""


@contextmanager
def watched_folder() -> Iterator[Path]:
    """Give a temporary folder; afterwards neither it nor any process that it is the MARK of is left.

    That holds even where this process is killed meanwhile.
    """
    root = tempfile.gettempdir()
    folder = Path(root if len(root) <= LONGEST_ROOT else "/tmp") / f"polyfed-{secrets.token_hex(4)}"
    watch = subprocess.Popen(
        [sys.executable, "-P", __file__, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        folder.mkdir(mode=0o700)  # once it is watched, or a kill in between would leave it
        yield folder
    finally:
        watch.communicate(GOODBYE)  # closes its standard input and waits


def marked(folder: str) -> set[psutil.Process]:
    """Return the processes that the run in `folder` has started.

    Ray's daemons leave their parent's process group and session, so that the mark in the environment
    is all they share. Some write their title over it; those are found as children, or, where Ray has ended
    before them, by their logs.
    """
    processes = list(psutil.process_iter(["environ", "ppid"]))
    found = {p.pid: p for p in processes if _is_of(folder, p)}
    while children := [p for p in processes if p.info["ppid"] in found and p.pid not in found]:
        found.update((child.pid, child) for child in children)
    return set(found.values())


def _is_of(folder: str, process: psutil.Process) -> bool:
    if environment := process.info["environ"]:
        return bool(environment.get(MARK) == folder)
    with suppress(psutil.Error):  # it has ended meanwhile, or is another user's
        return any(file.path.startswith(f"{folder}/") for file in process.open_files())
    return False


def end(folder: str) -> bool:
    """End every process of the run in `folder`, politely at first; return whether none is left."""
    start = time.monotonic()
    known: set[psutil.Process] = set()
    while time.monotonic() - start < GRACE + PATIENCE:
        new = marked(folder) - known  # a daemon may have started another child meanwhile
        known |= new
        alive = {process for process in known if _is_alive(process)}
        if not alive:
            return True
        if time.monotonic() - start < GRACE:
            _each(new, psutil.Process.terminate)
        else:
            _each(alive, psutil.Process.kill)
        time.sleep(0.05)
    return False


def _each(processes: Iterable[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            act(process)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def main(folder: str) -> None:
    """Wait for standard input to close, then end the run in `folder` and remove the folder."""
    if sys.stdin.buffer.read() != GOODBYE:  # Ray ends its driver without a word where its raylet is gone
        print("polyfed: the run's process was killed, or ended as Ray's own processes died", file=sys.stderr)
    if not end(folder):
        left = ", ".join(str(process.pid) for process in marked(folder))
        print(f"polyfed: these processes of the run could not be ended: {left}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    if Path(folder).exists():
        print(f"polyfed: {folder} could not be removed", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
