"""What a run's models are worth on the test examples, which are read when nothing is left to choose."""

import math
from logging import INFO, WARNING
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.core.log import log
from server.checkpoint import SERVER_ROUND
from server.errors import RunFailedError
from server.rounds import RoundLoop
from server.run_schema import BEST_MODEL, Tested


def tested(loop: RoundLoop) -> Tested | None:
    """Evaluate the last model and the best one; None where the test examples have chosen between rounds.

    Raises RunFailedError for a metric that is not finite.
    """
    evaluation, progress = loop.evaluation, loop.progress
    if not evaluation.validates:
        return None
    final = _finite(evaluation.test_metrics(loop.averaged), "last")
    best = final
    if progress.best_round != progress.server_round:
        kept = _best_model(loop.folder.path / BEST_MODEL, progress.best_round) if progress.best else None
        best = {} if kept is None else _finite(evaluation.test_metrics(kept), "best")
    log(INFO, "Test examples: the last model has %s, that of round %d %s", final, progress.best_round, best)
    return Tested(best=best, final=final, num_examples=len(loop.task.dataset.test))


def _best_model(path: Path, server_round: int) -> dict[str, Tensor] | None:
    """Return the model that was kept after this round; None where another one, or none, lies there."""
    try:
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get(SERVER_ROUND)
            if found == str(server_round):
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError) as error:
        found = str(error)
    log(WARNING, "%s is not the model of round %d (%s): it is not tested", path, server_round, found)
    return None


def _finite(metrics: dict[str, float], which: str) -> dict[str, float]:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise RunFailedError(
                f"{name} of the {which} model is {value} on the test examples: training diverged; lower the "
                "learning rate"
            )
    return metrics
