"""Where a node's resident worker is found: a socket of the node's user.

It is named by the process that starts the node's ClientApps, so that each SuperNode has a worker of its own.
"""

import hashlib
import os
import socket
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_runtime_path

CREDENTIALS = struct.Struct("iII")
"""Linux' ucred: process, user and group."""


@dataclass(frozen=True)
class Place:
    """A socket, in a folder that nobody else may enter."""

    path: Path

    @staticmethod
    def of(owner: int) -> "Place":
        """Return the place of the worker of a process; OSError where there can be none.

        No two processes that live have one name: numbers come again, and each container counts its own.
        """
        if not hasattr(os, "pidfd_open"):
            raise OSError("it needs Linux")
        started = Path(f"/proc/{owner}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        container = Path("/proc/self/ns/pid").stat().st_ino
        name = hashlib.sha256(f"{container} {owner} {started}".encode()).hexdigest()[:16]
        return Place(_own_folder() / f"{name}.socket")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody else from starting or removing a worker meanwhile."""
        import fcntl  # Windows has none

        with (self.path.parent / "lock").open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def inode(self) -> int:
        """Number that tells this socket from the one that takes its place; 0 where there is none."""
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return 0

    def listen(self) -> socket.socket:
        """Return a socket that listens here, instead of any other; the lock is held."""
        listener = socket.socket(socket.AF_UNIX)
        scratch = self.path.with_suffix(f".{os.getpid()}")
        try:
            listener.bind(str(scratch))
            scratch.chmod(0o600)
            listener.listen()
            scratch.replace(self.path)  # whoever finds it finds it listening
        except BaseException:
            listener.close()
            scratch.unlink(missing_ok=True)
            raise
        return listener

    def connect(self) -> socket.socket | None:
        """Return a connection to who listens here; None where nobody does. OSError where it is a stranger."""
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(self.path))
            if not same_user(line):
                raise PermissionError(f"{self.path} belongs to another user")
        except (FileNotFoundError, ConnectionRefusedError):
            line.close()
            return None
        except BaseException:
            line.close()
            raise
        return line

    def remove(self, inode: int) -> None:
        """Remove the socket, unless another has taken its place."""
        with self.locked():
            if self.inode == inode:
                self.path.unlink(missing_ok=True)


def same_user(line: socket.socket) -> bool:
    """Return whether the process at the other end is this user's."""
    said = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return bool(CREDENTIALS.unpack(said)[1] == os.geteuid())


def _own_folder() -> Path:
    """Return the folder of the sockets; PermissionError for one that others may enter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a service has no session, and /tmp will do
        folder = user_runtime_path("polyfed")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{folder} must be a folder of this user's that nobody else may enter (chmod 700), and is "
            f"{stat.filemode(found.st_mode)} of user {found.st_uid}"
        )
    return folder
