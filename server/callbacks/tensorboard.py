"""TensorBoard: `tensorboard --logdir RUN/tensorboard`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from server.callbacks.tracker import Tracker
from server.rounds import RoundLoop
from server.run_schema import TENSORBOARD, RoundRecord, RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TensorBoard(Tracker):
    """Writes event files under RUN/tensorboard. A resumed run drops the rounds that it does again."""

    package = "tensorboard"

    def on_run_start(self, run: RoundLoop) -> None:
        """Open the writer."""
        from torch.utils.tensorboard import SummaryWriter

        done = run.progress.server_round
        again = (done + 1 if done else 0) if run.config.resume else None
        self.writer = SummaryWriter(str(run.folder.path / TENSORBOARD), purge_step=again)

    def on_round_end(self, record: RoundRecord) -> None:
        """Write a round's numbers."""
        for name, value in record.scalars().items():
            self.writer.add_scalar(name, value, record.server_round)
        self.writer.flush()

    def on_figures(self, figures: Mapping[str, "Figure"], server_round: int) -> None:
        """Write the figures."""
        for name, figure in figures.items():
            self.writer.add_figure(name, figure, server_round, close=False)

    def on_run_end(self, result: RunResult) -> None:
        """Write what the last model is worth on the test examples, and close the writer."""
        for name, value in result.test_scalars.items():
            self.writer.add_scalar(name, value, result.server_round)
        self.writer.close()
