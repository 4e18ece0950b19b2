"""What a run that goes on begins with; nothing of the run is touched before this is known."""

import json
import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from models.core.errors import UserError
from models.core.seeds import STREAMS
from models.state import federated_names, model_state
from server.checkpoint import Checkpoint, CheckpointFolder
from server.plan import Plan, pace_of
from server.rounds import Progress
from server.run_schema import CHECKPOINTS, CLIENTS, METRICS, RESULT, TOKEN, RunResult, explain, whole_record
from server.strategy import load_strategy
from strategies.memory import capture, restore

PROGRESS = TypeAdapter(Progress)


def checkpoint_to_resume(plan: Plan, run_dir: Path) -> Checkpoint | None:
    """Return the newest usable checkpoint; None where the run was cut before it had trained a round.

    Raises UserError where there is none, and the run has trained: to start over would destroy its rounds; for
    one whose random numbers were derived otherwise; and for broken metrics, which could not be continued.
    """
    rounds = rounds_trained(run_dir)
    folder = CheckpointFolder(run_dir / CHECKPOINTS)
    reasons: list[str] = []
    checkpoint = next(usable_checkpoints(plan, run_dir, reasons), None)
    if checkpoint is None and rounds:
        has = "none of its checkpoints can be used" if folder.newest_round() else "it has kept no checkpoint"
        why = f" ({reasons[0]})" if reasons else ""
        raise UserError(
            f"the run in {run_dir} has trained to round {rounds}, but {has}{why}: it is not resumed, and "
            "left as it is; to start over give another run-dir, or delete this one; to go on put back what "
            "is missing"
        )
    return checkpoint


def usable_checkpoints(
    plan: Plan, run_dir: Path, reasons: list[str] | None = None, before: float = math.inf
) -> Iterator[Checkpoint]:
    """Yield the checkpoints that a run can go on from exactly, newest first, of rounds before this one.

    What is wrong with another one is said in the log, and added to `reasons`.
    """
    state = model_state(plan.model)
    like = {name: state[name] for name in federated_names(plan.model, plan.task).all}
    folder = CheckpointFolder(run_dir / CHECKPOINTS)
    for checkpoint in folder.newest_first(like, before, reasons):
        _check_streams(checkpoint, run_dir)
        try:
            _check_memory(plan, checkpoint)
            if (
                checkpoint.states and not (run_dir / TOKEN).exists()
            ):  # else the states lie on nodes, which check them
                checkpoint.states.check(run_dir / CLIENTS)
        except Exception as error:  # whatever a strange memory makes of a strategy
            folder.refuse(checkpoint.server_round, error, reasons)
        else:
            yield checkpoint


def check_engine_used(plan: Plan, run_dir: Path) -> None:
    """Raise UserError for a run whose clients would no longer be trained as they were."""
    try:
        used = RunResult.model_validate_json((run_dir / RESULT).read_bytes()).used
    except (OSError, ValidationError):  # a run that was killed before it began, or another version's
        return
    before = used.engine if used else ""
    if before not in ("", plan.engine.name):
        raise UserError(
            f'the run in {run_dir} chose engine "{before}" by engine = "auto", and this polyfed chooses '
            f'"{plan.engine.name}" ({plan.engine.why}), so it would not go on as it began: resume it with '
            "the polyfed that began it, or start another run (init-from takes over its weights)"
        )


def _check_streams(checkpoint: Checkpoint, run_dir: Path) -> None:
    """Raise UserError for a run whose random numbers were derived otherwise."""
    if checkpoint.streams != STREAMS:
        raise UserError(
            f"the run in {run_dir} derived its random numbers by scheme {checkpoint.streams}, and this "
            f"polyfed does by scheme {STREAMS}, so it would not go on as it began: resume it with the "
            "polyfed that began it, or start another run (init-from takes over its weights)"
        )


def _check_memory(plan: Plan, checkpoint: Checkpoint) -> None:
    """Raise where the loop or the strategy could not go on with what they remembered."""
    found = checkpoint.progress
    known = {field.name for field in fields(Progress)}
    if not isinstance(found, dict) or found.keys() != known:
        raise ValueError(f"its progress must have {', '.join(sorted(known))}, got {_short(found)}")
    try:
        progress = PROGRESS.validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        raise ValueError(f"its progress is broken: {explain(error)}") from error
    if progress.server_round != checkpoint.server_round:
        raise ValueError(f"its progress is that of round {progress.server_round}")
    pace_of(plan).restore(checkpoint.pace, checkpoint.pace_tensors)  # one to try it on
    strategy = load_strategy(plan.config, plan.task_config.num_clients)  # one to try it on
    missing = _attributes(capture(strategy)[0]) - _attributes(checkpoint.strategy)
    if missing:
        raise ValueError(f"it lacks what the strategy keeps in {', '.join(sorted(missing))}")
    restore(strategy, checkpoint.strategy, checkpoint.strategy_arrays)


def _attributes(tree: Any) -> set[str]:
    """Return the names of what a strategy's memory holds."""
    if not isinstance(tree, dict) or not isinstance(tree.get("strategy"), dict):
        raise ValueError(f"the memory of its strategy is {_short(tree)}")
    return set(tree["strategy"])


def _short(value: object) -> str:
    return f"{value!r:.80}"


def rounds_trained(run_dir: Path) -> int:
    """Return the last round that a run has trained; 0 where it has trained none."""
    checkpointed = CheckpointFolder(run_dir / CHECKPOINTS).newest_round()
    metrics = run_dir / METRICS
    lines = metrics.read_bytes().splitlines() if metrics.exists() else []
    try:
        return max([checkpointed, *map(_round_trained, lines)])
    except ValidationError as error:
        raise UserError(
            f"{metrics} is broken: {explain(error)}; restore it, or give another run-dir"
        ) from error


def _round_trained(line: bytes) -> int:
    record = whole_record(line)
    # A round in which every client failed has a line too, but has trained nothing.
    return record.server_round if record and record.train else 0
