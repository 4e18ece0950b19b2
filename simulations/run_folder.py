"""Reading a run folder: what the ServerApp wrote while a run went on, as one frozen value."""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.config import RunConfig
from models.errors import UserError

STATUSES = ("completed", "stopped", "failed")
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Failure:
    """One client that failed in one round."""

    server_round: int
    client: int
    error: str


@dataclass(frozen=True)
class Round:
    """One line of metrics.jsonl; round 0 is the evaluation of the initial model."""

    server_round: int
    train: Mapping[str, float]
    """Weighted means over the clients that trained."""
    evaluate: Mapping[str, float]
    """Metrics merged over the clients that evaluated; empty where none did."""
    central: Mapping[str, float]
    """Metrics on the server's held-out rows; empty in rounds without."""
    clients: tuple[int, ...]
    failures: tuple[Failure, ...]
    seconds: Mapping[str, float]
    """Phase -> seconds, and "total"."""
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True)
class Result:
    """result.json: how the run ended."""

    status: str
    """One of STATUSES."""
    reason: str
    """Why it stopped or failed."""
    metric: str
    """What the best model goes by; "" where the run failed too early to know."""
    maximize: bool
    best_round: int | None
    best: Mapping[str, float]
    final: Mapping[str, float]
    weights_sha256: str
    num_parameters: int
    seconds: float
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Partition:
    """partition.json: how many examples the first clients hold."""

    num_clients: int
    classes: tuple[str, ...]
    """Class names; empty for data without labels."""
    counts: np.ndarray[Any, np.dtype[np.int64]]
    """(clients listed, classes); (clients listed,) for data without labels."""


@dataclass(frozen=True)
class Run:
    """A run folder; `result` is None while the run is under way, or if it was killed."""

    name: str
    path: Path
    config: RunConfig
    rounds: tuple[Round, ...]
    result: Result | None
    partition: Partition | None
    figures: Mapping[str, bytes]
    """Name -> SVG of the final model."""
    half_written: bool
    """Whether metrics.jsonl ends inside a line, which is left out."""

    @property
    def status(self) -> str:
        """One of STATUSES, or UNFINISHED."""
        return self.result.status if self.result else UNFINISHED

    @property
    def last_round(self) -> int:
        """The last round with metrics; 0 before any."""
        return self.rounds[-1].server_round if self.rounds else 0

    @property
    def metric(self) -> str | None:
        """The metric of the run; without a result, the first one that was measured on held-out rows."""
        if self.result and self.result.metric:
            return self.result.metric
        return next((name for line in self.rounds for name in line.central), None)

    @property
    def ended_with_metrics(self) -> bool:
        """Whether `final` is about the last model, not merely the last that was measured."""
        return bool(self.result and self.result.final)

    @property
    def final(self) -> Mapping[str, float]:
        """Metrics of the last model on held-out rows; without a result, the last that were measured."""
        if self.result and self.result.final:
            return self.result.final
        return next((line.central for line in reversed(self.rounds) if line.central), {})

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run; without a result, those of its rounds."""
        return self.result.seconds if self.result else sum(r.seconds.get("total", 0.0) for r in self.rounds)

    @property
    def bytes_down(self) -> int:
        """Bytes from the server to the clients."""
        return sum(line.bytes_down for line in self.rounds)

    @property
    def bytes_up(self) -> int:
        """Bytes from the clients to the server."""
        return sum(line.bytes_up for line in self.rounds)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every client failure, in the order of rounds."""
        return tuple(failure for line in self.rounds for failure in line.failures)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read run folders; those that share a name are named by their whole path.

    Raises UserError for no path at all, a folder that is not a run, or a broken file in one.
    """
    if not paths:
        raise UserError("no run was given: name one run folder or more")
    runs = [read_run(path) for path in paths]
    names = Counter(run.name for run in runs)
    return [replace(run, name=str(run.path)) if names[run.name] > 1 else run for run in runs]


def read_run(path: Path) -> Run:
    """Read one run folder; raises UserError where it is not a run or a file in it is broken."""
    path = path.resolve()
    if not path.is_dir():
        raise UserError(f"there is no run folder {path}")
    if not (path / "config.toml").is_file():
        raise UserError(f"{path} is not a run folder: it holds no config.toml")
    with _reading(path / "config.toml") as text:
        config = tomllib.loads(text)
    rounds, half_written = _read_rounds(path / "metrics.jsonl")
    return Run(
        name=path.name,
        path=path,
        config=config,
        rounds=rounds,
        result=_read_result(path / "result.json"),
        partition=_read_partition(path / "partition.json"),
        figures={file.stem: file.read_bytes() for file in sorted((path / "figures").glob("*.svg"))},
        half_written=half_written,
    )


@contextmanager
def _reading(path: Path) -> Iterator[str]:
    """Give the text of a file, and turn what goes wrong in reading or parsing it into a UserError."""
    try:
        yield path.read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is broken: {type(error).__name__}: {error}; restore it or run again"
        ) from error


def _read_rounds(path: Path) -> tuple[tuple[Round, ...], bool]:
    """Return the rounds in order, and whether the file ends inside a line."""
    if not path.exists():
        return (), False
    rounds: dict[int, Round] = {}
    with _reading(path) as text:
        for line in text.splitlines(keepends=True):
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                if line.endswith("\n"):  # only the writer's last line may lack its end
                    raise
                return _in_order(rounds), True
            rounds[values["server_round"]] = _round(values)  # a resumed run repeats rounds: the later holds
    return _in_order(rounds), False


def _in_order(rounds: Mapping[int, Round]) -> tuple[Round, ...]:
    return tuple(rounds[number] for number in sorted(rounds))


def _round(values: Mapping[str, Any]) -> Round:
    number = int(values["server_round"])
    sent = values.get("bytes", {})
    return Round(
        server_round=number,
        train=_numbers(values.get("train", {})),
        evaluate=_numbers(values.get("evaluate", {})),
        central=_numbers(values.get("central", {})),
        clients=tuple(int(client) for client in values.get("clients", ())),
        failures=tuple(
            Failure(number, int(failure["client"]), str(failure["error"]))
            for failure in values.get("failures", ())
        ),
        seconds=_numbers(values.get("seconds", {})),
        bytes_down=int(sent.get("down", 0)),
        bytes_up=int(sent.get("up", 0)),
    )


def _read_result(path: Path) -> Result | None:
    if not path.exists():
        return None
    with _reading(path) as text:
        values = json.loads(text)
        if values["status"] not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {values['status']!r}")
        return Result(
            status=values["status"],
            reason=str(values.get("reason") or ""),
            metric=str(values.get("metric") or ""),
            maximize=bool(values.get("maximize", True)),
            best_round=values.get("best_round"),
            best=_numbers(values.get("best") or {}),
            final=_numbers(values.get("final") or {}),
            weights_sha256=str(values.get("weights_sha256") or ""),
            num_parameters=int(values.get("num_parameters") or 0),
            seconds=float(values.get("seconds") or 0.0),
            versions={name: str(version) for name, version in values.get("versions", {}).items()},
        )


def _read_partition(path: Path) -> Partition | None:
    if not path.exists():
        return None
    with _reading(path) as text:
        values = json.loads(text)
        classes = tuple(map(str, values["classes"]))
        counts = np.asarray(values["counts"], dtype=np.int64)
        if counts.shape != (len(counts), *([len(classes)] if classes else [])):
            raise ValueError(f"counts of shape {counts.shape} do not fit {len(classes)} classes")
        return Partition(int(values["num_clients"]), classes, counts)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
