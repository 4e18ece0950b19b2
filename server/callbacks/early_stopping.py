"""Ending a run that does not get better."""

from server.callbacks.callback import Callback
from server.rounds import RoundLoop
from server.run_schema import RoundRecord


class EarlyStopping(Callback):
    """Ends the run after `patience` central evaluations without a better one; BestModel counts them."""

    essential = True

    def on_run_start(self, run: RoundLoop) -> None:
        """Look at once: a run that was stopped and is resumed has had its evaluations."""
        self.run = run
        self._look()

    def on_round_end(self, record: RoundRecord) -> None:
        """Look again."""
        self._look()

    def _look(self) -> None:
        stale = self.run.progress.stale
        if 0 < self.run.config.patience <= stale:
            self.run.stop(f"no better {self.run.task.metric} in {stale} evaluations")
