"""Starting a node's resident worker: by the first message that finds none."""

import os
import subprocess
import sys
from pathlib import Path

from clients.resident.place import Place

APP = Path(__file__).parents[2]
"""The folder of the app: Flower keeps one for each version of it."""
MAIN = Path(__file__).with_name("__main__.py")
RUNTIME_ENVIRONMENTS = "runtime-envs"
"""Name of the folder in which Flower makes an environment for each message, where a node allows it."""


def start(place: Place, owner: int, idle: float) -> None:
    """Start a worker at the place, which ends with its owner or after `idle` seconds; the lock is held.

    It does not end with this process, and is not told of a Ctrl-C that this one is told of. Raises OSError
    where none can be started.
    """
    if any(RUNTIME_ENVIRONMENTS in Path(entry).parts for entry in sys.path):
        raise OSError("Flower installs the app's dependencies for each message, and removes them after it")
    handle = os.pidfd_open(owner)
    try:
        if os.getppid() != owner:  # the handle is that of another process, which has got its number
            raise ProcessLookupError("what has started this ClientApp has ended")
        with place.listen() as listener:
            given = [str(each) for each in (listener.fileno(), handle, place.path, place.inode, idle)]
            worker = subprocess.Popen(
                # -P: nothing is imported from the folder that the SuperNode was started in.
                [sys.executable, "-P", str(MAIN), *given],
                stdin=subprocess.DEVNULL,
                pass_fds=(listener.fileno(), handle),
                start_new_session=True,
            )
        worker.returncode = 0  # nobody here waits for its end
    finally:
        os.close(handle)
