"""What a run that goes on begins with; nothing of the run is touched before this is known."""

from pathlib import Path

from pydantic import ValidationError

from models.core.errors import UserError
from models.core.seeds import STREAMS
from models.state import federated_names, model_state
from server.checkpoint import Checkpoint, CheckpointFolder
from server.plan import Plan
from server.run_schema import CHECKPOINTS, METRICS, explain, whole_record


def checkpoint_to_resume(plan: Plan, run_dir: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint; None where the run was cut before it had trained a round.

    Raises UserError where there is none, and the run has trained: to start over would destroy its rounds; for
    one whose random numbers were derived otherwise; and for broken metrics, which could not be continued.
    """
    rounds = rounds_trained(run_dir)
    state = model_state(plan.model)
    like = {name: state[name] for name in federated_names(plan.model, plan.task).all}
    folder = CheckpointFolder(run_dir / CHECKPOINTS)
    checkpoint = folder.load_newest(like)
    if checkpoint is None and rounds:
        has = "none of its checkpoints can be used" if folder.oldest_round() else "it has kept no checkpoint"
        raise UserError(
            f"the run in {run_dir} has trained to round {rounds}, but {has}: it is not resumed, and left as "
            "it is; to start over give another run-dir, or delete this one; "
            "to go on put a whole checkpoint back"
        )
    if checkpoint and checkpoint.streams != STREAMS:
        raise UserError(
            f"the run in {run_dir} derived its random numbers by scheme {checkpoint.streams}, and this "
            f"polyfed does by scheme {STREAMS}, so it would not go on as it began: resume it with the "
            "polyfed that began it, or start another run (init-from takes over its weights)"
        )
    return checkpoint


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
