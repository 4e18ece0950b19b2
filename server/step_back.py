"""Going back one checkpoint further where a run that is resumed fails at once.

A checkpoint may be whole and hold what nobody can train from, such as weights of 1e30. Were it kept, every
resume would fail. Where the one before it does no better, all is put back: the fault is another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import WARNING
from typing import Literal

from models.core.errors import UserError
from models.core.log import log
from models.core.tracebacks import line_of, traceback_of
from server.checkpoint import CheckpointFolder
from server.errors import NodesFailedError
from server.plan import Plan
from server.resume import usable_checkpoints
from server.rounds import RoundLoop
from server.run_schema import METRICS, RunResult


def run_or_step_back(loop: RoundLoop, plan: Plan) -> Literal["completed", "stopped"]:
    """Run the rounds; where the first one after a checkpoint fails, from the checkpoint before it."""
    begun = loop.progress.server_round
    try:
        return loop.run()
    except (UserError, NodesFailedError):
        raise
    except Exception as error:  # whatever a poisoned checkpoint makes of a round
        if not plan.config.resume or loop.progress.server_round > begun:
            raise
        older = next(usable_checkpoints(plan, loop.folder.path, before=begun), None)
        if older is None:
            raise
        why = line_of(error)
        log(WARNING, "The checkpoint of round %d is set aside, as the run failed at once: %s", begun, why)
        loop.errors.write(f"the first round after the checkpoint of round {begun}", traceback_of(error))
        loop.callbacks.on_run_end(RunResult(status="failed", reason=why))
        with _set_aside(loop, begun):
            loop.folder.started += loop.progress.seconds  # which `resume` has taken off
            loop.stop_reason = ""
            loop.resume(older)
            return loop.run()


@contextmanager
def _set_aside(loop: RoundLoop, server_round: int) -> Iterator[None]:
    """Set a checkpoint aside; put it back, and the metrics, unless its round has been done again."""
    metrics = loop.folder.path / METRICS
    before = metrics.read_bytes()
    folder = CheckpointFolder(loop.checkpoints.folder)
    aside = folder.set_aside(server_round)
    try:
        yield
    finally:
        if loop.progress.server_round >= server_round:
            aside.unlink()
        else:
            aside.rename(folder.path(server_round))
            metrics.write_bytes(before)
