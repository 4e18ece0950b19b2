"""Reading a run folder, which the ServerApp writes while a run goes on."""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.core.errors import UserError
from simulations.runs.record import STATUSES, Failure, Partition, Result, Round, Run, Transfer


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
        transfer=_read_transfer(path / "transfer.json"),
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
    rounds: list[Round] = []
    with _reading(path) as text:
        for line in text.splitlines(keepends=True):
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                if line.endswith("\n"):  # only the writer's last line may lack its end
                    raise
                return tuple(rounds), True
            rounds.append(_round(values))
    return tuple(rounds), False


def _round(values: Mapping[str, Any]) -> Round:
    number = int(values["server_round"])
    sent = values.get("bytes", {})
    return Round(
        server_round=number,
        train=_numbers(values.get("train", {})),
        evaluate=_numbers(values.get("evaluate", {})),
        by_client=_by_client(values.get("by_client", {})),
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
        counts = np.asarray(values["counts"], dtype=np.int64).reshape(-1, len(classes) or 1)
        if len(counts) != len(values["counts"]):
            raise ValueError(f"each client needs {len(classes) or 1} counts")
        return Partition(int(values["num_clients"]), classes, counts)


def _read_transfer(path: Path) -> Transfer | None:
    if not path.exists():
        return None
    with _reading(path) as text:
        values = json.loads(text)
        entries = {
            str(what): {module: len(names) for module, names in modules.items()}
            for what, modules in values["entries"].items()
        }
        return Transfer(str(values["source"]), str(values["sha256"]), entries)


def _by_client(columns: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Turn a column of clients and one a metric into metric -> client -> value."""
    return {
        name: {
            int(client): float(value)
            for client, value in zip(columns["client"], column, strict=True)
            if value is not None
        }
        for name, column in columns.items()
        if name != "client"
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
