"""Reading a run folder, which the ServerApp writes while a run goes on."""

import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from logging import WARNING
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from models.core.config import EARLIER, RunConfig, checked
from models.core.errors import UserError
from models.core.log import log
from models.core.tracebacks import plain_line
from server.run_schema import (
    CONFIG,
    EXPLANATIONS,
    FIGURES,
    METRICS,
    PARTITION,
    RESULT,
    TRANSFER,
    ExplanationSummary,
    PartitionCounts,
    RoundRecord,
    RunResult,
    TransferSummary,
    explain,
)
from simulations.runs.record import Drawn, Run
from simulations.scenario import defaults

Schema = TypeVar("Schema", bound=BaseModel)


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
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} is not a run folder: it holds no {CONFIG}")
    with _reading(path / CONFIG) as content:
        config = _complete(tomllib.loads(content.decode()))
    rounds, half_written = _read_rounds(path / METRICS)
    return Run(
        name=path.name,
        path=path,
        config=config,
        rounds=rounds,
        result=_read_json(path / RESULT, RunResult),
        partition=_read_json(path / PARTITION, PartitionCounts),
        transfer=_read_json(path / TRANSFER, TransferSummary),
        figures={file.stem: file.read_bytes() for file in sorted((path / FIGURES).glob("*.svg"))},
        half_written=half_written,
        explanations=_read_explanations(path / EXPLANATIONS),
    )


def _complete(written: dict[str, Any]) -> RunConfig:
    """Return a run config with the defaults of keys that an older polyfed did not have.

    Raises UserError for a value of another type than its key has; keys that are no more stay as they are.
    """
    known = defaults()
    given = {
        key: checked(key, value, type(known[key])) if key in known else value
        for key, value in written.items()
    }
    return {**known, **EARLIER, **given}


@contextmanager
def _reading(path: Path) -> Iterator[bytes]:
    """Give what a file holds, and turn what goes wrong in reading or parsing it into a UserError."""
    try:
        yield path.read_bytes()
    except (OSError, ValueError) as error:
        match error:
            case ValidationError():
                why = explain(error)
            case UserError():
                why = str(error)
            case _:
                why = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is broken: {why}; restore it or run again") from error


def _read_rounds(path: Path) -> tuple[tuple[RoundRecord, ...], bool]:
    """Return the rounds in order, and whether the file ends inside a line."""
    if not path.exists():
        return (), False
    rounds: list[RoundRecord] = []
    with _reading(path) as content:
        for line in content.splitlines(keepends=True):
            try:
                rounds.append(RoundRecord.model_validate_json(line))
            except ValidationError as error:
                inside = error.errors()[0]["type"] == "json_invalid"
                if inside and not line.endswith(b"\n"):  # only the writer's last line may lack its end
                    return tuple(rounds), True
                raise
    return tuple(rounds), False


def _read_explanations(folder: Path) -> dict[str, Drawn]:
    """Return what there is of each method whose picture is there, too; what is broken is left out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        picture = path.with_suffix(".png")
        try:
            summary = _read_json(path, ExplanationSummary)
        except UserError as error:  # the run itself can be read, and explained again
            log(WARNING, "%s: it is left out", plain_line(str(error)))
            continue
        if summary and picture.exists():
            found[summary.method] = Drawn(summary, picture.read_bytes())
    return found


def _read_json(path: Path, schema: type[Schema]) -> Schema | None:
    """Return what the file holds; None where there is no such file."""
    if not path.exists():
        return None
    with _reading(path) as content:
        return schema.model_validate_json(content)
