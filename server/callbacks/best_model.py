"""Keeping the best model."""

import math
from logging import WARNING

from models.core.log import log
from server.callbacks.callback import Callback
from server.checkpoint import SERVER_ROUND, write_safetensors
from server.rounds import RoundLoop
from server.run_schema import BEST_MODEL, RoundRecord


class BestModel(Callback):
    """Keeps the model of the round whose central metric is best, and counts the evaluations since."""

    essential = True
    phase = "evaluation"
    told = False
    """Whether the log has it that a metric is undefined."""

    def on_run_start(self, run: RoundLoop) -> None:
        """Take the run whose model it keeps."""
        self.run = run

    def on_round_end(self, record: RoundRecord) -> None:
        """Compare, where the round was evaluated."""
        if not record.central:
            return
        progress, task = self.run.progress, self.run.task
        if task.metric not in record.central:
            if not self.told:
                said = "Round %d: %s is undefined on the %s: it is neither better nor worse"
                log(WARNING, said, record.server_round, task.metric, self.run.evaluation.examples)
                self.told = True
            return
        value, best = record.central[task.metric], progress.best.get(task.metric, math.nan)
        better = value > best if task.maximize else value < best
        if better or math.isnan(best):
            progress.best, progress.best_round, progress.stale = record.central, record.server_round, 0
            header = {SERVER_ROUND: str(record.server_round)}
            write_safetensors(
                self.run.folder.path / BEST_MODEL, {**self.run.at_hand, **self.run.fixed}, header
            )
        else:
            progress.stale += 1
