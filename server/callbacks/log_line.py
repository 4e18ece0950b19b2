"""A line in the log for each round."""

from logging import INFO

from models.core.log import log
from server.callbacks.callback import Callback
from server.rounds import RoundLoop
from server.run_schema import RoundRecord


class LogLine(Callback):
    """Logs a round's metrics in training and on the held-out examples."""

    essential = True

    def on_run_start(self, run: RoundLoop) -> None:
        """Take the run whose rounds are counted."""
        self.num_rounds = run.config.num_server_rounds

    def on_round_end(self, record: RoundRecord) -> None:
        """Log the line; the untrained model has none."""
        if record.server_round:
            shown = {name: round(value, 4) for name, value in {**record.train, **record.central}.items()}
            log(INFO, "[ROUND %d/%d] %s", record.server_round, self.num_rounds, shown)
