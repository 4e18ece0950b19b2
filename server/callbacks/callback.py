"""The seam between the round loop and what follows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from server.run_schema import RoundRecord, RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from server.rounds import RoundLoop

HOOKS = ("on_run_start", "on_round_end", "on_figures", "on_run_end")


class Callback:
    """Follows a run. Every hook does nothing until it is overridden.

    A callback is made without arguments when the run is planned, which may be in more than one process:
    what has an effect belongs into `on_run_start`. It looks at the run and changes nothing of it, but for
    asking it to end (`run.stop`).
    """

    essential: ClassVar[bool] = False
    """Whether an exception in it fails the run; else its traceback is in errors.log, and the run goes on."""
    phase: ClassVar[str] = "callbacks"
    """Under what its seconds are counted."""

    def on_run_start(self, run: RoundLoop) -> None:
        """Begin with a run, which may be one that goes on; see `run.progress`."""

    def on_round_end(self, record: RoundRecord) -> None:
        """See what a round found. Its line is in metrics.jsonl, its checkpoint is not yet written."""

    def on_figures(self, figures: Mapping[str, Figure], server_round: int) -> None:
        """See the task's figures of the model of this round."""

    def on_run_end(self, result: RunResult) -> None:
        """See how the run ended, be it well or badly; result.json is written afterwards."""
