"""Which file of weights `init-from` names: a run's best model or its last, or a file."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from models.core.errors import UserError
from models.core.plugins import find
from models.core.tracebacks import plain_line
from models.registry import ENTRY_POINTS, TASKS, task_classes
from server.checkpoint import SERVER_ROUND
from server.config import ServerConfig
from server.run_schema import BEST_MODEL, CONFIG, LAST_MODEL, RESULT, START_MODEL, RunResult

BEST, LAST = "best", "last"
MODELS = {BEST: BEST_MODEL, LAST: LAST_MODEL}


@dataclass(frozen=True)
class StartingPoint:
    """A file of weights."""

    path: Path
    remarks: Sequence[str] = ()
    """What a person should know of it, a line each."""


def starting_point(config: ServerConfig) -> StartingPoint:
    """Return the weights that the run begins with.

    Of a run they are the best model; where it learned without labels, for others to begin with, the last one:
    its metric is not what it was trained for. `RUN:best` and `RUN:last` say which.
    Raises UserError where `init-from` is not there, or is no run that has kept a model.
    """
    own = Path(config.run_dir) / START_MODEL
    if config.resume and own.exists():
        return StartingPoint(own)
    given = Path(config.init_from)
    if given.exists() and not given.is_dir():
        return StartingPoint(given)
    run, which = run_and_model(config.init_from)
    if run.is_dir():
        return kept_model(run, which)
    raise UserError(
        f"init-from {given} is not there: give a run folder, with :best or :last after it where you want "
        "one of these, or a .safetensors or .pth file"
    )


def run_and_model(given: str) -> tuple[Path, str]:
    """Return the folder that RUN, RUN:best or RUN:last names, and which of its models; "" = nobody says.

    A folder may itself be called so.
    """
    run, colon, which = given.rpartition(":")
    named = colon and which in MODELS and not Path(given).is_dir()
    return (Path(run), which) if named else (Path(given), "")


def kept_model(run: Path, which: str = "", wanted_for: str = "init-from") -> StartingPoint:
    """Return which of its models a run gives: the best, or the last where it learns for others to begin with.

    Where it has not kept that one, the other is taken, unless `which` asks for one of them.
    Raises UserError, which says what it was `wanted_for`, where there is none.
    """
    order = [which] if which else _order(run)
    which = next((which for which in order if (run / MODELS[which]).exists()), "")
    if not which:
        wanted = " nor ".join(str(MODELS[which]) for which in order)
        raise UserError(
            f"{wanted_for} {run} is no run that has kept such a model: it holds "
            f"{'neither ' if len(order) > 1 else 'no '}{wanted}"
        )
    path = run / MODELS[which]
    remarks = _how_it_ended(_result(run), which)
    if which != order[0]:
        remarks.append(f"it has kept no {order[0]} model: its {which} one is taken")
    if which == BEST and round_of(path, run) == 0:
        remarks.append(f"its best model is that of round 0, which nobody has trained; {run}:last is its last")
    return StartingPoint(path, remarks)


def _order(run: Path) -> list[str]:
    """Return which model of a run is wanted, and which where it has not kept that."""
    return [LAST, BEST] if _pretrains(run) else [BEST, LAST]


def _pretrains(run: Path) -> bool:
    """Return whether the run's task learns without labels; False where that cannot be known."""
    try:
        name = str(tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))["task"])
        return any(cls.pretrains for cls in task_classes(name, find(name, "task", TASKS, ENTRY_POINTS)))
    except (OSError, ValueError, KeyError, ImportError):  # no whole run, or of a plugin that is not here
        return False


def _how_it_ended(result: RunResult | None, which: str) -> list[str]:
    """Return a line on a run that has not come to its end."""
    if result is None or result.status == "unfinished":
        return [f"that run is unfinished: this is its {which} model so far"]
    return [f"that run failed: {plain_line(result.reason)}"] if result.status == "failed" else []


def _result(run: Path) -> RunResult | None:
    try:
        return RunResult.model_validate_json((run / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def round_of(path: Path, run: Path) -> int | None:
    """Return the round after which one of a run's models was kept; None where nobody has said."""
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(SERVER_ROUND)
    except (OSError, SafetensorError):  # said where it is read
        return None
    if said is not None and said.isdecimal():
        return int(said)
    if path.stem != BEST:
        return None
    result = _result(run)  # an older polyfed wrote it there alone
    return result.best_round if result and result.best else None
