"""Writing a checkpoint every few rounds."""

import time
from dataclasses import asdict

from server.callbacks.callback import Callback
from server.checkpoint import Checkpoint
from server.rounds import RoundLoop
from server.run_schema import RoundRecord
from strategies.memory import capture


class Checkpointing(Callback):
    """Writes all that the run needs to go on, every `checkpoint-every` rounds."""

    essential = True
    phase = "checkpoint"

    def on_run_start(self, run: RoundLoop) -> None:
        """Take the run that it keeps."""
        self.run = run

    def on_round_end(self, record: RoundRecord) -> None:
        """Write a checkpoint where it is due; there is none of the untrained model."""
        run, every = self.run, self.run.config.checkpoint_every
        if not every or record.server_round == 0 or record.server_round % every:
            return
        tree, arrays = capture(run.strategy)
        run.progress.seconds = time.time() - run.folder.started
        run.checkpoints.save(
            Checkpoint(
                record.server_round,
                run.at_hand,
                asdict(run.progress),
                tree,
                arrays,
                run.grid.states,
                *run.pace.memory(),
            )
        )
