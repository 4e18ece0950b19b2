"""A strategy that weights clients by a metric of its own; given to runs as "weighing:Weighing"."""

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Message, MetricRecord
from flwr.serverapp.strategy import FedAvg

from strategies import Declaration, LocalRule, ParameterResult, RuleResult

WORTH = "worth"


class SaysWorth(LocalRule):
    """Replies the same worth for every client."""

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        return RuleResult(metrics={WORTH: 2.0})


class Weighing(FedAvg):
    """FedAvg by that worth; keeps what it sees of an evaluation."""

    declaration = Declaration(
        weighted_mean=True, local_rules=("weighing:SaysWorth",), not_kept=("seen", "mean")
    )

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"weighted_by_key": WORTH, **options})
        self.seen: list[Message] = []
        self.mean: MetricRecord | None = None

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        self.seen = list(replies)
        self.mean = super().aggregate_evaluate(server_round, self.seen)
        return self.mean
