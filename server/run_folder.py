"""The folder that a run writes: config, metrics by round, models, figures, result."""

import itertools
import tempfile
import time
import tomllib
import uuid
from contextlib import suppress
from pathlib import Path

import tomli_w
from filelock import BaseFileLock, FileLock, Timeout

from models.core.config import EARLIER, RunConfig, TaskConfig, read
from models.core.errors import UserError
from server.config import ServerConfig
from server.disk import disk_use
from server.provenance import provenance
from server.run_schema import (
    CONFIG,
    LOCK,
    METRICS,
    RESULT,
    SCHEMA,
    TOKEN,
    RoundRecord,
    RunFile,
    RunResult,
    Used,
    whole_record,
)

PATIENCE = 3.0
"""Seconds to wait for a run folder that is in use."""

# Keys that say how far, where and how patiently to run, not what is computed: resuming may change them.
FREE_ON_RESUME = frozenset(
    {
        "callbacks", "checkpoint-every", "client-gpus", "client-timeout", "cluster-data", "cluster-states",
        "data-dir", "download", "draw-every", "expected-nodes", "keep-checkpoints", "min-clients",
        "min-replies", "node-silence", "node-timeout", "num-nodes", "num-server-rounds", "num-workers",
        "patience", "resume", "round-grace", "round-timeout", "run-dir", "short-rounds", "trackers",
        "unfit-nodes",
    }
)  # fmt: skip


class RunFolder:
    """One run's folder, locked for as long as this object lives."""

    def __init__(self, path: Path, run_config: RunConfig, *, resume: bool) -> None:
        """Claim the folder for a new run, or for going on with the run in it; see `claim`.

        The run that is there stays as it is until `begin` is called.
        """
        self.path = path
        self.run_config = run_config
        self.started = time.time()
        self.task_config = read(TaskConfig, run_config)
        self.used: Used | None = None
        """What the run uses, once it is known."""
        self.nodes: list[str] = []
        """What its nodes compute with, once they have said it."""
        self._lock = claim(path, run_config, resume=resume)
        self.begun = False
        """Whether this run may write here: one that is resumed may once it is known that it can go on."""
        if not resume:
            self.begin()

    def begin(self) -> None:
        """Write the config, and a result that says that there is none yet."""
        _write_whole(self.path / CONFIG, tomli_w.dumps(dict(self.run_config)))
        self.say_unfinished()
        self.begun = True

    def say_unfinished(self) -> None:
        """Write what there is to say as long as the run goes on, and if it is killed."""
        self.finish(RunResult(status="unfinished", reason="it is under way, or was killed"))

    def token(self) -> str:
        """Return a name that no other run has; a resumed run keeps it, its folder's next run does not."""
        path = self.path / TOKEN
        if not path.exists():
            _write_whole(path, uuid.uuid4().hex[:8])
        return path.read_text(encoding="utf-8")

    def rounds_after(self, server_round: int) -> list[RoundRecord]:
        """Return the lines of the rounds after this one."""
        metrics = self.path / METRICS
        lines = metrics.read_bytes().splitlines() if metrics.exists() else []
        return [each for each in map(whole_record, lines) if each and each.server_round > server_round]

    def rewind(self, server_round: int) -> None:
        """Drop the metrics of the rounds after this one, which will be done again."""
        metrics = self.path / METRICS
        lines = metrics.read_bytes().splitlines() if metrics.exists() else []
        kept = [line for line in lines if _round_of(line) <= server_round]
        # A file of its own, by which whoever follows the old one can tell.
        partial = self.path / f"{METRICS}.partial"
        partial.write_bytes(b"".join(line + b"\n" for line in kept))
        partial.replace(self.path / METRICS)

    def append(self, record: RoundRecord) -> None:
        """Add a round to metrics.jsonl."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(record.as_line())

    def finish(self, result: RunResult) -> None:
        """Write how the run ended."""
        found = {
            "schema_number": SCHEMA,
            "seconds": time.time() - self.started,
            **provenance(self.task_config),
            "nodes": self.nodes,
            "used": self.used,
            "disk": disk_use(self.path),
        }
        write_json(self.path / RESULT, result.model_copy(update=found))

    def close(self) -> None:
        """Give the folder free."""
        self._lock.release()


def new_folder(parent: Path, name: str) -> Path:
    """Make a folder that nobody else has: NAME, or NAME-2 where that is there already, and so on.

    Raises UserError where it cannot be made.
    """
    try:
        for number in itertools.count(1):
            path = parent / (name if number == 1 else f"{name}-{number}")
            parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.mkdir()  # which only one of two runs that start together can
                return path
    except OSError as error:
        raise UserError(
            f"run-dir {parent / name} cannot be made ({error.strerror}): give another folder"
        ) from error
    raise AssertionError("unreachable")


def write_json(path: Path, content: RunFile) -> None:
    """Write a JSON file so that it is there as a whole or not at all."""
    _write_whole(path, content.model_dump_json(indent=1))


def _write_whole(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def claim(path: Path, run_config: RunConfig, *, resume: bool) -> BaseFileLock:
    """Return the folder's lock, which holds until it is released.

    Raises UserError when another process writes the folder, when it holds a run already (without
    `resume`), or when it holds none, or one of another config (with it).
    """
    try:
        if resume and not (path / CONFIG).exists():
            raise UserError(f"run-dir {path} holds no run to resume: there is no {CONFIG}")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run-dir {path} cannot be made ({error.strerror}): give another folder") from error
    lock = hold(path, LOCK)
    try:
        if resume:
            _check_same_run(path, run_config)
        elif (path / CONFIG).exists():
            raise UserError(f"run-dir {path} already holds a run: resume it, or give another run-dir")
    except Exception:
        lock.release()
        raise
    return lock


def hold(path: Path, name: str) -> BaseFileLock:
    """Return the lock of this name in a run folder, which holds until it is released.

    Raises UserError where another process holds it, or the folder cannot be written.
    """
    lock = FileLock(path / name)
    try:
        with tempfile.TemporaryFile(dir=path):  # a lock file that is there already tells nothing
            pass
        # A run that was killed a moment ago may take this long to let go.
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise UserError(
            f"run-dir {path} is in use by another run: wait for it, or give another run-dir"
        ) from error
    except OSError as error:
        raise UserError(
            f"run-dir {path} cannot be written ({error.strerror}): give another folder"
        ) from error
    return lock


def _check_same_run(path: Path, run_config: RunConfig) -> None:
    # A run from before a key was there has done what its default does, or what EARLIER says.
    defaults = {**TaskConfig.defaults(), **ServerConfig.defaults(), **EARLIER}
    try:
        before = defaults | tomllib.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path / CONFIG} is broken ({error}): restore it, or give another run-dir"
        ) from error
    for key in sorted(run_config):
        if key not in FREE_ON_RESUME and before.get(key) != run_config[key]:
            raise UserError(
                f"{key} is {run_config[key]!r}, but the run in {path} has {before.get(key)!r}: "
                "a resumed run must keep it"
            )


def _round_of(line: bytes) -> float:
    record = whole_record(line)
    return record.server_round if record else float("inf")
