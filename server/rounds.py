"""The round loop, over a strategy's public methods."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING
from typing import Any, Literal

import numpy as np
import torch
from flwr.app import ConfigRecord, MetricRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from models.core.log import log
from models.core.seeds import seed_python
from models.task import Task
from server.callbacks.callback import Callback
from server.checkpoint import Checkpoint, CheckpointFolder
from server.client_metrics import as_flower_wants, client_metrics, metrics_by_client, named, undefined
from server.cohort import NOT_NEEDED, CohortGrid
from server.cohort_result import CohortResult
from server.config import ServerConfig
from server.error_log import ErrorLog
from server.errors import RunFailedError
from server.evaluation import CentralEvaluation
from server.mean import aggregated
from server.pace import Pace
from server.part_means import PartMeans
from server.rehearsal import KNOWN
from server.run_folder import RunFolder
from server.run_schema import CHECKPOINTS, ERRORS, FailureRecord, RoundRecord
from server.short_rounds import ShortRounds
from strategies.declaration import aggregates_evaluation, chain_of, declaration_of, weight_keys
from strategies.memory import capture, restore
from strategies.privacy.budget import DRAWN_FROM
from strategies.rule import Arrays
from strategies.wire.arrays import hold_tensors, tensor_view, views
from strategies.wire.form import listed
from strategies.wire.request import RoundInfo
from strategies.wire.train_config import SERVER_ROUND, as_json, from_json


@dataclass
class Progress:
    """What the loop remembers from round to round; checkpoints carry it as JSON."""

    server_round: int = 0
    best: dict[str, float] = field(default_factory=dict)
    """Central metrics of the best round."""
    best_round: int = 0
    stale: int = 0
    """Central evaluations since the best one."""
    final: dict[str, float] = field(default_factory=dict)
    """The newest central metrics."""
    seconds: float = 0.0
    """Time that the run has taken, over all its legs."""
    words: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the strategy has left in the config of "train" and of "evaluate", which it gets again."""


class RoundLoop:
    """Trains the global model round by round."""

    def __init__(
        self,
        config: ServerConfig,
        seed: int,
        strategy: Strategy,
        grid: CohortGrid,
        evaluation: CentralEvaluation,
        folder: RunFolder,
        weights: dict[str, Tensor],
        statistics: dict[str, Tensor],
        fixed: dict[str, Tensor],
        state_path: str,
        errors: ErrorLog,
        callbacks: Callback,
        pace: Pace,
        enough: float = math.inf,
        part_means: PartMeans | None = None,
    ) -> None:
        self.config = config
        self.seed = seed
        self.strategy = strategy
        self.grid = grid
        self.evaluation = evaluation
        self.task: Task = evaluation.task
        self.folder = folder
        self._weights = weights
        self._statistics = statistics
        self.fixed = fixed
        self.state_path = state_path
        self.errors = errors
        self.checkpoints = CheckpointFolder(folder.path / CHECKPOINTS, config.keep_checkpoints)
        self.callbacks = callbacks
        self.pace = pace
        self.enough = enough
        """Clients after whose answers a round's training waits for no others."""
        self.part_means = part_means or PartMeans()
        self.short_rounds = ShortRounds(config)
        self.progress = Progress()
        self.seconds: dict[str, float] = {}
        self.stop_reason = ""
        self.told_undefined: set[str] = set()
        """Metrics that some clients do not have, each of which the log names once."""
        self._undone: list[RoundRecord] = []
        """Rounds that are done again, of which the earlier ones were released, too."""
        self._lists: dict[str, list[int | float]] = {}
        """What the strategy returned of this round that is no single number."""

    @property
    def model(self) -> dict[str, Tensor]:
        """Copies of all that the server knows of the model: what is averaged, and what clients were given."""
        return {**self.averaged, **_copies(self.fixed)}

    @property
    def averaged(self) -> dict[str, Tensor]:
        """Copies of what is averaged: the parameters, which the strategy sees, and statistics beside them."""
        return {**self.weights, **_copies(self._statistics)}

    @property
    def at_hand(self) -> dict[str, Tensor]:
        """What is averaged, itself: to read at once, as in writing it down, and not to change."""
        return {**self._weights, **self._statistics}

    @property
    def weights(self) -> dict[str, Tensor]:
        """Copies of the parameters: a callback that changed the run's own would change the model."""
        return _copies(self._weights)

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Go back to a checkpoint; to the start without one, which is for runs that have not trained."""
        if checkpoint is None:
            log(WARNING, "The run in %s has trained no round: starting from round 1", self.folder.path)
        else:
            self._weights = {name: checkpoint.weights[name] for name in self._weights}
            self._statistics = {name: checkpoint.weights[name] for name in self._statistics}
            self.progress = Progress(**checkpoint.progress)
            self.grid.states = checkpoint.states
            self.pace.restore(checkpoint.pace, checkpoint.pace_tensors)
            self.folder.started -= self.progress.seconds
            restore(self.strategy, checkpoint.strategy, checkpoint.strategy_arrays)
            self._count_again(checkpoint)
            log(INFO, "Resuming after round %d", checkpoint.server_round)
        self.folder.begin()
        self.folder.rewind(self.progress.server_round if checkpoint else -1)

    def _count_again(self, checkpoint: Checkpoint) -> None:
        """Tell private strategies of the rounds that are done again, with other noise: both are released.

        The checkpoint remembers it, or a run that is killed again would count them no more.
        """
        self._undone += self.folder.rounds_after(checkpoint.server_round)
        private = [each for each in chain_of(self.strategy) if hasattr(each, "count_again")]
        for record in self._undone if private else ():
            asked = [*record.clients, *(each.client for each in record.failures)]
            for each in private:
                each.count_again(asked, record.lists.get(f"train/{DRAWN_FROM}", []))
        if private and self._undone:
            said = "%d rounds are done again with other noise: epsilon counts them twice"
            log(WARNING, said, len(self._undone))
            tree, arrays = capture(self.strategy)
            self.checkpoints.save(replace(checkpoint, strategy=tree, strategy_arrays=arrays))

    def run(self) -> Literal["completed", "stopped"]:
        """Run until the last round, or until a callback asks to stop; return "completed" or "stopped"."""
        if not type(self.strategy).summary.__module__.startswith(KNOWN):
            self.strategy.summary()  # as Flower does; what Flower's own say is in the run's config
        self.callbacks.on_run_start(self)
        self._last_record = time.perf_counter()
        if self.progress.server_round == 0 and self.config.evaluate_every:
            central = self._evaluate_centrally(0)
            self._tell(self._record({"server_round": 0, "central": central}))
        while self.progress.server_round < self.config.num_server_rounds:
            if self.stop_reason:
                return "stopped"
            self._tell(self._round(self.progress.server_round + 1))
        return "completed"

    def stop(self, reason: str) -> None:
        """End the run after this round, however many were asked for."""
        self.stop_reason = reason

    def _round(self, server_round: int) -> RoundRecord:
        row: dict[str, Any] = {"server_round": server_round, "train": {}, "evaluate": {}, "central": {}}
        row |= _cohort(CohortResult())
        self._lists = {}
        try:
            cohort = self._train(server_round)
            row |= _cohort(cohort)
            if self.pace.seconds is not None:
                row["simulated_seconds"] = self.pace.seconds
            if trained := self._aggregate(server_round, cohort):
                row["train"] = self._finite(server_round, {**trained, **self.pace.metrics()})
            evaluated = self._evaluate_on_clients(server_round)
            row |= self._client_metrics(server_round, evaluated)
            also = _cohort(evaluated)
            row["failures"] += also["failures"]
            row["bytes"] = {way: row["bytes"][way] + also["bytes"][way] for way in row["bytes"]}
            if self._is_evaluated(server_round):
                row["central"] = self._evaluate_centrally(server_round)
        except RunFailedError:  # what is known of the round is written all the same
            self._record(row)
            raise
        self.progress.server_round = server_round
        row |= {"lists": self._lists} if self._lists else {}
        return self._record(row)

    def _record(self, row: dict[str, Any]) -> RoundRecord:
        """Write a round's line, before anything else is done with the round.

        Its seconds are those since the line before: what followed that one, as its checkpoint, counts here.
        """
        seconds = {**self.seconds, "total": time.perf_counter() - self._last_record}
        record = RoundRecord.model_validate({**row, "seconds": seconds})
        self.folder.append(record)
        self.seconds, self._last_record = {}, time.perf_counter()
        return record

    def _tell(self, record: RoundRecord) -> None:
        # The line first: a run that is killed in here does the round again, and no line is missing.
        self.callbacks.on_round_end(record)

    def _train(self, server_round: int) -> CohortResult:
        """Let the strategy's cohort train."""
        with self.timed("sampling"):
            self._seed("train", server_round)
            info = self._info(server_round)
            self.grid.begin_round(info, self.config.round_timeout, self._statistics)
            words = self._words("train", server_round)
            weights = hold_tensors(self._weights)
            shown = self.pace.begin(server_round, self.grid)
            self.grid.shown = None if shown is None else frozenset(shown)
            self.grid.expect_sampling()
            asked = self.strategy.configure_train(server_round, weights, words, self.grid)
            messages = [message for message in asked if self.pace.asks(message.metadata.dst_node_id)]
            self.pace.check(type(self.strategy).__name__, [each.metadata.dst_node_id for each in messages])
            self.grid.shown = None
            self.progress.words["train"] = as_json(words)
        told, timeout = self.pace.info(info), self.config.round_timeout
        exchange = self.pace.exchange(self.grid)
        cohort = exchange(messages, told, timeout, self._statistics, self.enough)
        cohort = self.pace.end(server_round, cohort, views(weights))
        self.part_means.average_by_part(cohort, views(weights))
        self.seconds["training"] = cohort.node_seconds
        self.seconds["transport"] = cohort.seconds - cohort.node_seconds
        self._tell_failures(server_round, cohort, "failed")
        return cohort

    def _aggregate(self, server_round: int, cohort: CohortResult) -> dict[str, float]:
        """Let the strategy combine the replies, and take over its new weights; return its metrics."""
        if self.short_rounds.leaves_out(server_round, cohort):
            return {}
        with self.timed("aggregation"):
            self._seed("aggregate", server_round)  # DP strategies draw their noise here
            arrays, metrics = aggregated(self.strategy, server_round, cohort)
            if arrays is None:
                raise RunFailedError(
                    f"{type(self.strategy).__name__} returned no model in round {server_round}"
                )
            self._take_over(arrays, server_round)
            if cohort.statistics:
                self._statistics = self._checked(self._statistics, cohort.statistics, server_round)
        self._lists |= _lists("train", metrics)
        return {**cohort.partial_metrics, **_plain(metrics), "num-examples": cohort.num_examples}

    def _tell_failures(self, server_round: int, cohort: CohortResult, what: str) -> None:
        """Say which clients failed, and keep their tracebacks."""
        for each in cohort.failures:
            if each.error == NOT_NEEDED:
                continue  # as its user has asked for
            self.errors.client_failed(server_round, each)
            said = f"client {each.client} {what}: {each.error} (traceback in {ERRORS})"
            log(WARNING, "Round %d: %s", server_round, said)

    def _take_over(self, new: Arrays, server_round: int) -> None:
        """Take the strategy's new weights; raise RunFailedError where they are not the model's."""
        returned = f"{type(self.strategy).__name__} returned in round {server_round}"
        if missing := self._weights.keys() - new.keys():
            raise RunFailedError(f"{returned} a part of the weights: {listed(missing)} missing")
        for name, old in self._weights.items():
            if new[name].shape != old.shape:
                found, wanted = [*new[name].shape], [*old.shape]
                raise RunFailedError(f"{returned} {name} of shape {found}, and it has {wanted}")
        self._weights = self._checked(self._weights, new, server_round)

    def _checked(self, old: Mapping[str, Tensor], new: Arrays, server_round: int) -> dict[str, Tensor]:
        """Return new tensors, which may be float64, in the model's types; raise RunFailedError for others."""
        cast = {name: tensor_view(np.asarray(new[name])).to(tensor.dtype) for name, tensor in old.items()}
        for name, tensor in cast.items():
            # One pass for a sum; what is finite may still add up to something that is not.
            if not tensor.sum().isfinite() and not torch.isfinite(tensor).all():
                raise RunFailedError(f"{name} is not finite after round {server_round}: training diverged")
        return cast

    def _evaluate_on_clients(self, server_round: int) -> CohortResult:
        """Let the strategy's choice of clients evaluate the new model on their own examples."""
        with self.timed("evaluation"):
            self._seed("evaluate", server_round)
            info = self._info(server_round)
            self.grid.begin_round(info, self.config.round_timeout, self._statistics)
            self.grid.expect_sampling()
            words = self._words("evaluate", server_round)
            weights = hold_tensors(self._weights)
            asked = self.strategy.configure_evaluate(server_round, weights, words, self.grid)
            messages = [each for each in asked if self.pace.evaluates(each.metadata.dst_node_id)]
            self.progress.words["evaluate"] = as_json(words)
            cohort = self.grid.exchange(messages, info, self.config.round_timeout, self._statistics)
        self._tell_failures(server_round, cohort, "failed to evaluate")
        return cohort

    def _client_metrics(self, server_round: int, cohort: CohortResult) -> dict[str, Any]:
        """Return what clients found on their own examples, for the round's row; {} if none was asked."""
        if not (cohort.clients or cohort.failures):
            return {}
        replies = as_flower_wants(cohort.replies, weight_keys(self.strategy))
        metrics = self.strategy.aggregate_evaluate(server_round, replies)
        # Flower's mean of ratios is no better than the exact one; what a strategy makes of them is its own.
        own = metrics if aggregates_evaluation(self.strategy) else None
        self._lists |= _lists("evaluate", own)
        found = {each.metadata.src_node_id: each.content for each in replies if each.has_content()}
        by_client = metrics_by_client(self.task, found)
        for name, clients in undefined(by_client).items():
            if name not in self.told_undefined:
                self.told_undefined.add(name)
                said = "Round %d: %s is undefined on the examples of clients %s, which it leaves out"
                log(WARNING, said, server_round, name, named(clients))
        merged = {**client_metrics(self.task, found.values()), **_plain(own)}
        return {"evaluate": self._finite(server_round, merged), "by_client": by_client}

    def _finite(self, server_round: int, metrics: dict[str, float]) -> dict[str, float]:
        """Return the metrics without those that are not finite, which no JSON can hold; say which."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                log(WARNING, "Round %d: the clients' %s is %s and is left out", server_round, name, value)
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _is_evaluated(self, server_round: int) -> bool:
        every = self.config.evaluate_every
        return server_round == self.config.num_server_rounds or bool(every and server_round % every == 0)

    def _evaluate_centrally(self, server_round: int) -> dict[str, float]:
        """Evaluate on the examples that choose; raise RunFailedError for a metric that is not finite."""
        with self.timed("evaluation"):
            metrics = self.evaluation.metrics({**self._weights, **self._statistics})
        for name, value in metrics.items():
            if not math.isfinite(value):
                where = f"on the {self.evaluation.examples} after round {server_round}"
                raise RunFailedError(f"{name} is {value} {where}: training diverged; lower the learning rate")
        self.progress.final = metrics
        return metrics

    def _words(self, purpose: str, server_round: int) -> ConfigRecord:
        """Return the config that a strategy adds its own words to, with those of the round before."""
        return ConfigRecord({**from_json(self.progress.words.get(purpose, {})), SERVER_ROUND: server_round})

    def _info(self, server_round: int) -> RoundInfo:
        """Return what polyfed says to every client beside the strategy's own words."""
        # Clients keep the states that a resume from any kept checkpoint could ask for.
        # Where this leg of the run writes none, an earlier one may have.
        restorable = self.checkpoints.oldest_round() or (0 if self.config.checkpoint_every else server_round)
        declaration = declaration_of(self.strategy)
        return RoundInfo(
            server_round,
            restorable,
            self.state_path,
            weighted_by=declaration.weighted_by if declaration.weighted_mean else "",
            rules=declaration.local_rules,
            personal_rules=declaration.personal_rules,
            received_losses=declaration.received_losses,
            client_seconds=self.config.client_timeout or math.inf,
        )

    def _seed(self, purpose: str, server_round: int) -> None:
        """Seed what strategies sample with."""
        seed_python(self.seed, purpose, server_round, "cohort")

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the seconds of what is done meanwhile."""
        started = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started


def _cohort(cohort: CohortResult) -> dict[str, Any]:
    return {
        "clients": tuple(cohort.clients),
        "failures": tuple(FailureRecord(client=each.client, error=each.error) for each in cohort.failures),
        "bytes": {
            "down": cohort.bytes_down,
            "up": cohort.bytes_up,
            "clients_down": cohort.client_bytes_down,
            "clients_up": cohort.client_bytes_up,
            "left": Counter(cohort.left),
        },
    }


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _lists(where: str, metrics: MetricRecord | None) -> dict[str, list[int | float]]:
    """Return the lists in what a strategy returned, by names such as "train/losses"."""
    return {f"{where}/{name}": [*each] for name, each in (metrics or {}).items() if isinstance(each, list)}


def _plain(metrics: MetricRecord | None) -> dict[str, float]:
    return {name: value for name, value in (metrics or {}).items() if isinstance(value, int | float)}
