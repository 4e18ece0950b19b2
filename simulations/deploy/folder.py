"""The folder of a SuperLink or a SuperNode: what lies in it, and which process works in it."""

import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from models.core.errors import UserError

OWN = 0o700
"""Mode of the folder: keys, database and states are for its owner alone."""
RUNNING, LOCK = "running.json", "lock"
OURS = frozenset({"ca.crt", "server.key", "node.key", RUNNING})
"""Files by one of which a folder that is not empty is known."""


@dataclass(frozen=True)
class Running:
    """What was started last in a folder."""

    program: str
    """ "flower-superlink" or "flower-supernode"."""
    pid: int
    """Its process."""
    folder: str
    """Its folder, as it stands in the command, by which another process with its number is told apart."""
    address: str
    """HOST:PORT that it serves on, as this machine reaches it."""
    superlink: str = ""
    """HOST:PORT of the SuperLink, for a SuperNode."""
    began: float | None = None
    """When the process began, as the system tells it: numbers of processes come again."""

    @property
    def process(self) -> psutil.Process | None:
        """The process, where it is still there."""
        try:
            found = psutil.Process(self.pid)
            words = found.cmdline()  # none for a zombie
            if found.uids().effective != os.geteuid() or self.began not in (None, found.create_time()):
                return None
        except psutil.Error:
            return None
        is_it = self.program in words and any(word.startswith(f"{self.folder}{os.sep}") for word in words)
        return found if is_it else None


@dataclass(frozen=True)
class Folder:
    """A folder of one server or one node."""

    path: Path
    """Where it lies, absolute."""

    @staticmethod
    def made(path: Path) -> "Folder":
        """Return the folder, made where it is not there, with a mode that lets nobody else in."""
        folder = Folder(path.absolute())
        try:
            there = set(os.listdir(folder.path)) if folder.path.exists() else set()
            if there and not there & OURS:
                raise UserError(f"{path} holds other files: give an empty folder")
            for each in (folder.path, folder.empty, folder.home):
                each.mkdir(mode=OWN, parents=True, exist_ok=True)
            folder.path.chmod(OWN)
        except OSError as error:
            raise UserError(f"cannot make the folder {path} ({error.strerror}): give another") from error
        return folder

    @staticmethod
    def there(path: Path) -> "Folder":
        """Return a folder in which something was started; UserError where nothing was."""
        folder = Folder(path.absolute())
        if not (folder.path / RUNNING).is_file():
            raise UserError(
                f"nothing was ever started in {path}: give a folder of polyfed deploy server or node"
            )
        return folder

    @property
    def ca(self) -> Path:
        """Certificate of the CA."""
        return self.path / "ca.crt"

    @property
    def certificate(self) -> Path:
        """Certificate of the server."""
        return self.path / "server.crt"

    @property
    def key(self) -> Path:
        """Private key of the server's certificate."""
        return self.path / "server.key"

    @property
    def node_key(self) -> Path:
        """Private key of the node, by which the SuperLink knows it."""
        return self.path / "node.key"

    @property
    def node_public(self) -> Path:
        """Public half of the node's key."""
        return self.path / "node.pub"

    @property
    def database(self) -> Path:
        """What the SuperLink remembers: nodes, runs, messages under way."""
        return self.path / "state.db"

    @property
    def node_clients(self) -> Path:
        """Which clients the SuperLink's owner lets each node's key host."""
        return self.path / "node-clients.toml"

    @property
    def home(self) -> Path:
        """FLWR_HOME: Flower's configuration and the apps that it has unpacked."""
        return self.path / "flwr"

    @property
    def empty(self) -> Path:
        """Working folder of the program, which holds no code that could be taken for another's."""
        return self.path / "empty"

    @property
    def states(self) -> Path:
        """What the node's clients keep between rounds, unless it is told another place."""
        return self.path / "state"

    @property
    def log(self) -> Path:
        """Output of a program that was started in the background."""
        return self.path / "output.log"

    def remember(self, running: Running) -> None:
        """Write down what runs in the folder."""
        new = self.path / f".{RUNNING}-{os.getpid()}"
        new.write_text(json.dumps(asdict(running), indent=1), encoding="utf-8")
        new.replace(self.path / RUNNING)

    def remembered(self) -> Running | None:
        """Return what was started last; None where nothing was, or its file is damaged."""
        try:
            return Running(**json.loads((self.path / RUNNING).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def hold(self) -> None:
        """Keep the folder to this process until it ends, whatever program it becomes meanwhile.

        Raises UserError where another has it, which may have been started a moment ago.
        """
        try:
            import fcntl
        except ImportError:  # Windows, on which Flower's servers do not run
            return
        with (self.path / LOCK).open("a", encoding="utf-8") as file:
            held = os.dup(file.fileno())
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(held)
            raise UserError(
                f"another program is being started in {self.path}: give each server and node a folder of "
                "its own"
            ) from error
        os.set_inheritable(held, True)  # for exec; what the program starts gets no files of it

    def check_idle(self) -> None:
        """Raise UserError where a program that was started in the folder still runs."""
        running = self.remembered()
        if running and running.process and running.pid != os.getpid():
            raise UserError(
                f"{running.program} runs in {self.path} already, as process {running.pid} on "
                f"{running.address}: polyfed deploy stop {self.path}"
            )


def stop(folder: Folder, patience: float) -> str:
    """End the program of a folder by SIGTERM and return what was done; UserError where it does not end."""
    running = folder.remembered()
    if running is None or (process := running.process) is None:
        return f"nothing runs in {folder.path}"
    # SuperExec and the apps watch the process that started them, and end after it.
    try:
        started = process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:  # it has ended by itself a moment ago
        return f"nothing runs in {folder.path}"
    _, left = psutil.wait_procs([process, *started], timeout=patience)
    if process in left:
        raise UserError(
            f"{running.program}, process {running.pid}, has not ended {patience:g} s after SIGTERM: "
            f"kill -9 {running.pid}"
        )
    said = f"{running.program}, process {running.pid}, has ended"
    return said + (f"; still at work: processes {', '.join(str(each.pid) for each in left)}" if left else "")
