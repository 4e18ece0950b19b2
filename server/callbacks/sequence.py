"""The callbacks of a run, called one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from logging import WARNING
from typing import TYPE_CHECKING, Any

from models.core.log import log
from models.core.tracebacks import line_of
from server.callbacks.callback import Callback
from server.run_schema import ERRORS, RoundRecord, RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from server.rounds import RoundLoop


class Callbacks(Callback):
    """Calls each callback in its order, and keeps what a guest does wrong from costing the run.

    One that fails as the run starts is not called again; the others are closed however the run ends.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks
        self._started: list[Callback] = []
        self._open: list[Callback] = []
        """Those of them that have not been told how the run ended."""

    def on_run_start(self, run: RoundLoop) -> None:
        """Start them all."""
        self.run = run
        for callback in self.callbacks:
            if self._call(callback, "on_run_start", run):
                self._started.append(callback)
                self._open.append(callback)

    def on_round_end(self, record: RoundRecord) -> None:
        """Tell them of a round; their seconds are in the next round's line."""
        for callback in self._started:
            with self.run.timed(callback.phase):
                self._call(callback, "on_round_end", record)

    def on_figures(self, figures: Mapping[str, Figure], server_round: int) -> None:
        """Show them the figures."""
        for callback in self._started:
            self._call(callback, "on_figures", figures, server_round)

    def on_run_end(self, result: RunResult) -> None:
        """Tell those that were started how the run ended, once."""
        while self._open:
            self._call(self._open.pop(0), "on_run_end", result)
        self._started.clear()

    def _call(self, callback: Callback, hook: str, *arguments: Any) -> bool:
        try:
            getattr(callback, hook)(*arguments)
        except Exception as error:
            if callback.essential:
                raise
            who, why = type(callback).__name__, line_of(error)
            self.run.errors.record(
                f"the callback {who} in {hook} of round {self.run.progress.server_round}", error
            )
            log(WARNING, "The callback %s failed in %s: %s (traceback in %s)", who, hook, why, ERRORS)
            return False
        return True
