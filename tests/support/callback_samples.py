"""Callbacks as users write them; what they saw is in CALLS, which a test empties."""

from typing import Any

from server.callbacks import Callback, RoundRecord, RunResult

CALLS: list[tuple[str, Any]] = []


class Notes(Callback):
    """Writes down what it is told."""

    def on_run_start(self, run: Any) -> None:
        self.run = run
        CALLS.append(("start", run.progress.server_round))

    def on_round_end(self, record: RoundRecord) -> None:
        written = (self.run.folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        assert RoundRecord.model_validate_json(written) == record  # the line is there before
        CALLS.append(("round", record.server_round))
        CALLS.append(("checkpointed", self.run.checkpoints.load_newest(self.run.weights) is not None))

    def on_figures(self, figures: Any, server_round: int) -> None:
        CALLS.append(("figures", (sorted(figures), server_round)))

    def on_run_end(self, result: RunResult) -> None:
        CALLS.append(("end", (result.status, result.server_round, len(result.weights_sha256))))


class StopsAfterOne(Callback):
    """Has enough after a round."""

    def on_run_start(self, run: Any) -> None:
        self.run = run

    def on_round_end(self, record: RoundRecord) -> None:
        if record.server_round == 1:
            self.run.stop("one round is enough")


class Meddles(Callback):
    """Zeroes whatever it can get hold of."""

    def on_run_start(self, run: Any) -> None:
        self.run = run

    def on_round_end(self, record: RoundRecord) -> None:
        for tensors in (self.run.weights, self.run.averaged, self.run.model):
            for tensor in tensors.values():
                tensor.zero_()
            tensors.clear()


class FailsAtTheStart(Notes):
    def on_run_start(self, run: Any) -> None:
        raise OSError("no disk")


class FailsAtTheEnd(Callback):
    def on_run_end(self, result: RunResult) -> None:
        raise OSError("no disk")


class FailsAsItIsMade(Callback):
    def __init__(self) -> None:
        self.size = len(3)  # type: ignore[arg-type]


class FailsEveryRound(Callback):
    def on_round_end(self, record: RoundRecord) -> None:
        raise KeyError(f"round {record.server_round}")


class MustNotFail(FailsEveryRound):
    essential = True


class Misspelt(Callback):
    def on_rounds_end(self, record: RoundRecord) -> None:
        """Nobody calls this."""


class NeedsAnArgument(Callback):
    def __init__(self, where: str) -> None:
        self.where = where


class NoCallback:
    def on_round_end(self, record: RoundRecord) -> None:
        """It has the hook, but not the class."""
