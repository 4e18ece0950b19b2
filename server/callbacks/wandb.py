"""Weights & Biases: nothing leaves the machine unless WANDB_MODE is "online" in the environment."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from server.callbacks.tracker import Tracker
from server.rounds import RoundLoop
from server.run_schema import RoundRecord, RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class WeightsAndBiases(Tracker):
    """Writes an offline run under RUN/wandb, which `wandb sync` sends later to whom you choose.

    A resumed run has the id of the run that it goes on, so that both meet when they are sent.
    """

    package = "wandb"

    def on_run_start(self, run: RoundLoop) -> None:
        """Open the run."""
        mode = os.environ.get("WANDB_MODE") or "offline"
        if mode != "online":  # the package would send reports of its own errors
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.image = wandb.Image
        quiet = wandb.Settings(
            mode=mode,  # type: ignore[arg-type]
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
        )
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "polyfed"),
            name=run.folder.path.name,
            id=run.folder.token(),
            resume="allow" if run.config.resume and mode == "online" else None,
            dir=run.folder.path,
            config=dict(run.folder.run_config),
            settings=quiet,
        )

    def on_round_end(self, record: RoundRecord) -> None:
        """Log a round's numbers; its step is the round."""
        self.run.log(record.scalars(), step=record.server_round)

    def on_figures(self, figures: Mapping[str, "Figure"], server_round: int) -> None:
        """Log the figures as images."""
        import matplotlib.pyplot  # noqa: F401  # which wandb takes for imported

        images = {f"figures/{name}": self.image(figure) for name, figure in figures.items()}
        self.run.log(images, step=server_round)

    def on_run_end(self, result: RunResult) -> None:
        """Log how it ended, and close the run."""
        ending = {"status": result.status, "weights_sha256": result.weights_sha256}
        self.run.summary.update({**ending, **result.test_scalars})
        self.run.finish(exit_code=0 if result.ended_well else 1)
