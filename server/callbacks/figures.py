"""Drawing the task's figures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from server.callbacks.callback import Callback
from server.rounds import RoundLoop
from server.run_schema import FIGURES, RoundRecord, RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Figures(Callback):
    """Draws the model as it is every `draw-every` rounds and at the end, and shows it to all callbacks."""

    phase = "evaluation"

    def on_run_start(self, run: RoundLoop) -> None:
        """Take the run whose model it draws."""
        self.run = run

    def on_round_end(self, record: RoundRecord) -> None:
        """Draw where it is due; the untrained model is not drawn."""
        every = self.run.config.draw_every
        if every and record.server_round and record.server_round % every == 0:
            self.draw(record.server_round, at_end=False)

    def on_run_end(self, result: RunResult) -> None:
        """Draw the final model."""
        if result.ended_well:
            self.draw(result.server_round, at_end=True)

    def draw(self, server_round: int, *, at_end: bool) -> None:
        """Draw, keep and show the figures."""
        figures = self.run.evaluation.figures(self.run.averaged, at_end=at_end)
        self.run.callbacks.on_figures(figures, server_round)

    def on_figures(self, figures: Mapping[str, "Figure"], server_round: int) -> None:
        """Save the figures for the report."""
        folder = self.run.folder.path / FIGURES
        folder.mkdir(exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.svg")
