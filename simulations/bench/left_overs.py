"""What a command that has ended leaves on the machine: processes, shared memory, temporary files."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "POLYFED_LEFT_OVERS"
"""Environment variable by which the processes of a watched command are known."""
SHARED = Path("/dev/shm")
TICK = 0.1
"""Seconds between two looks at which processes there are."""


@dataclass(frozen=True)
class LeftOvers:
    """What is left of a command."""

    processes: Sequence[str] = ()
    shared: Sequence[str] = ()
    """Files in /dev/shm."""
    temporary: Sequence[str] = ()
    """Files and folders among temporary ones."""

    def __bool__(self) -> bool:
        """Return whether there is anything."""
        return bool(self.processes or self.shared or self.temporary)


@dataclass
class Watched:
    """A command that is watched, so that nothing of it is overlooked."""

    process: subprocess.Popen[bytes]
    temporary: Path
    """A folder of its own for temporary files."""
    token: str
    """What MARK holds in its processes."""
    shared_before: frozenset[str]
    known: set[psutil.Process] = field(default_factory=set)

    def runs_for(self, seconds: float) -> bool:
        """Watch it for so long; return whether it has not ended by itself."""
        until = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < until:
            self.look()
            time.sleep(min(TICK, max(until - time.monotonic(), 0.0)))
        self.look()
        return self.process.poll() is None

    def look(self) -> set[psutil.Process]:
        """Return its processes that live: all that have the mark, and children, as some hide it."""
        listed = list(psutil.process_iter(["environ", "ppid"]))
        found = {each for each in listed if (each.info["environ"] or {}).get(MARK) == self.token}
        self.known |= found
        pids = {each.pid for each in self.known if is_alive(each)}
        while children := {each for each in listed if each.info["ppid"] in pids} - self.known:
            self.known |= children
            pids |= {each.pid for each in children}
        return {each for each in self.known if is_alive(each)}

    def left(self) -> LeftOvers:
        """Return what there is of it now."""
        self.process.poll()  # or it would be a zombie
        living = self.look()
        shared = shared_files() - self.shared_before
        if shared:  # which may be other programs'
            shared -= held_by_others({each.pid for each in self.known})
        return LeftOvers(
            sorted(f"{each.pid} {name_of(each)}" for each in living),
            sorted(shared),
            sorted(str(path) for path in self.temporary.iterdir()),
        )

    def left_after(self, seconds: float) -> tuple[LeftOvers, float]:
        """Return what is left after at most so many seconds, and when nothing was any more."""
        began = time.monotonic()
        while (left := self.left()) and time.monotonic() - began < seconds:
            time.sleep(TICK)
        return left, time.monotonic() - began


@contextmanager
def watched(command: Sequence[str], log: Path) -> Iterator[Watched]:
    """Start a command whose output goes to a file; afterwards nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="left-", dir="/tmp"))  # short: Ray's sockets lie in it
    token = secrets.token_hex(8)
    environment = {**os.environ, MARK: token, "TMPDIR": str(folder)}
    before = shared_files()
    with log.open("ab") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, env=environment, preexec_fn=hear_ctrl_c, start_new_session=True
        )
    found = Watched(process, folder, token, before)
    try:
        yield found
    finally:
        for each in found.look():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def hear_ctrl_c() -> None:
    """Let a new process hear Ctrl-C: what a shell runs in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def shared_files() -> frozenset[str]:
    """Return the files in shared memory."""
    return frozenset(os.listdir(SHARED)) if SHARED.is_dir() else frozenset()


def held_by_others(ours: set[int]) -> set[str]:
    """Return the files in shared memory that processes other than ours have in their memory."""
    held = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        if int(maps.parent.name) not in ours:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
                held |= {line.rpartition("/")[2] for line in lines if f"{SHARED}/" in line}
    return held


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process is there, and not merely waited for by its parent."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def name_of(process: psutil.Process) -> str:
    """Return a process's name."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return "?"
