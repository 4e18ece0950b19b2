"""Differential privacy of clients against whoever sees the model (McMahan et al. 2018, arXiv:1710.06963).

Updates are clipped, averaged with equal weights and noised, and only then does a strategy see them, so that
whatever it makes of them is private too. The names and options are those of Flower's four wrappers, which
noise what the strategy returns instead: an FedAdam's step, or a mean weighted by examples, may move further
than their noise allows for. docs/decisions.md tells the other differences.

The guarantee is for the weights, against anybody who does not know the run's seed, which the noise is drawn
from. Metrics of clients, such as their losses, are not noised.
"""

import math
from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.privacy.accountant import epsilon, least_noise
from strategies.privacy.clipping import CLIENTS, CLIPPED, NORM, clip
from strategies.privacy.private import PrivateStrategy
from strategies.rule import in_turn
from strategies.weighted_mean import takes_weighted_mean
from strategies.wire.exact_sum import ExactSum
from strategies.wire.records import to_arrays, to_record
from strategies.wire.reply import add_update, mean_metrics


class CentralDP(PrivateStrategy):
    """Hands a strategy the noised mean of clipped updates, as the reply of a single client.

    A client that fails counts as one that has not moved: the mean is always over `num_sampled_clients`, as
    one over fewer clients would depend more on each of them than the noise allows for.
    """

    def __init__(
        self,
        strategy: Strategy,
        num_sampled_clients: int,
        num_clients: int,
        num_rounds: int,
        clipping_norm: float,
        noise_multiplier: float | None = None,
        target_epsilon: float | None = None,
        delta: float | None = None,
    ) -> None:
        """Wrap a strategy.

        `noise_multiplier` is the deviation of the noise on the sum of updates, in clipping norms;
        `target_epsilon` finds the one for which `num_rounds` rounds cost that much at `delta`
        (num_clients**-1.1 unless given). Raises ValueError for a strategy that is not private even so,
        and for numbers out of range.
        """
        _check_mean_is_enough(strategy)
        super().__init__(
            strategy,
            num_clients,
            clipping_norm,
            noise_multiplier,
            target_epsilon,
            delta,
            lambda target, delta: least_noise(target, num_sampled_clients, num_clients, num_rounds, delta),
        )
        self.num_sampled_clients = num_sampled_clients
        self.rounds: dict[int, int] = {}
        """How many rounds drew their cohort from that many clients."""

    @property
    def update_noise(self) -> float:
        """Deviation of the noise on the sum of updates, in clipping norms."""
        return self.noise_multiplier

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the weights that updates start from, and how many clients the cohort is drawn from.

        Raises ValueError for a cohort of another size than the noise is made for, and for a round that
        would cost more than the target: one that was not planned for, or drawn from too few clients.
        """
        self._weights = to_arrays(arrays)
        before = len(list(grid.get_node_ids()))
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        if len(messages) != self.num_sampled_clients:
            raise ValueError(
                f"the noise is made for {self.num_sampled_clients} clients a round, and "
                f"{type(self.strategy).__name__} asked {len(messages)}"
            )
        # Nodes may have come or gone while the strategy waited for enough of them: the fewest count.
        self._population = max(len(messages), min(before, len(list(grid.get_node_ids()))))
        if self.target_epsilon is not None:
            self.check_target(server_round, self._epsilon_after(self._population))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Give the strategy w + (sum of clipped updates + noise) / num_sampled_clients; tell epsilon."""
        answered = [reply for reply in replies if reply.has_content()]
        if not answered:
            return None, None
        total, metrics = self._sum([reply.content for reply in answered])
        num_clients, clipped = total.weight, float(metrics.pop(CLIPPED))  # type: ignore[arg-type]
        share = num_clients / self.num_sampled_clients
        deviation = self.update_noise * self.clipping_norm / self.num_sampled_clients
        mean = total.mean()
        private = {}
        for name, weight in self._weights.items():
            noise = np.random.normal(0.0, deviation, weight.shape)
            private[name] = np.asarray(weight + share * (mean[name] - weight) + noise)  # may be without axes
        spent = self._epsilon_after(self._population)
        self.rounds[self._population] = self.rounds.get(self._population, 0) + 1
        told = {CLIPPED: clipped, NORM: self.clipping_norm}
        if math.isfinite(spent):
            told["epsilon"] = spent
        self._adapt(num_clients, clipped)
        del metrics[CLIENTS]
        alone = copy(answered[0])
        alone.content = RecordDict({"arrays": to_record(private), "metrics": metrics})
        arrays, merged = self.strategy.aggregate_train(server_round, [alone])
        return arrays, MetricRecord({**(merged or {}), **told})

    def _sum(self, contents: Sequence[RecordDict]) -> tuple[ExactSum, MetricRecord]:
        """Return the sum of replies that their clients have clipped, and the means of their metrics."""
        total = ExactSum()
        for content in contents:
            if CLIENTS not in next(iter(content.metric_records.values())):
                raise ValueError(
                    "a client replied without clipping: its ClientApp does not follow local rules"
                )
            add_update(total, content, CLIENTS)
        return total, mean_metrics(contents, CLIENTS)

    def _adapt(self, num_clients: float, clipped: float) -> None:
        """Choose the next round's norm, from the share of the clients that this one's has clipped."""

    def _epsilon_after(self, population: int) -> float:
        """Return what the rounds so far have cost, and one more that draws from that many clients."""
        if not self.noise_multiplier:
            return math.inf
        rounds = {**self.rounds, population: self.rounds.get(population, 0) + 1}
        return epsilon(self.noise_multiplier, self.num_sampled_clients, rounds, self.delta)


class ClipsOnServer(CentralDP):
    """Sees every update, and clips it."""

    def _sum(self, contents: Sequence[RecordDict]) -> tuple[ExactSum, MetricRecord]:
        clipped = []
        for content in contents:
            (record,) = content.array_records.values()
            (metrics,) = content.metric_records.values()
            arrays, shortened = clip(to_arrays(record), self._weights, self.clipping_norm)
            told = MetricRecord({**metrics, CLIENTS: 1.0, CLIPPED: float(shortened)})
            clipped.append(RecordDict({"arrays": to_record(arrays), "metrics": told}))
        return super()._sum(clipped)


class ClipsOnClients(CentralDP):
    """Trusts clients to clip, after whatever the strategy's own rule does; sees the sum of a node's alone."""

    weighted_by_key = CLIENTS

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the norm, too."""
        config[NORM] = self.clipping_norm
        return super().configure_train(server_round, arrays, config, grid)

    @property
    def local_rule(self) -> str:
        """The strategy's rule, then clipping."""
        return in_turn(super().local_rule, "strategies.privacy.clipping:Clipping")


class DifferentialPrivacyServerSideFixedClipping(ClipsOnServer):
    """Central DP; the server clips updates to `clipping_norm`."""


class DifferentialPrivacyClientSideFixedClipping(ClipsOnClients):
    """Central DP; clients clip their updates to `clipping_norm`."""

    weighted_mean = True


def _check_mean_is_enough(strategy: Strategy) -> None:
    """Raise ValueError for a strategy to which a client is not hidden by noise on the mean."""
    if not takes_weighted_mean(strategy) or isinstance(strategy, CentralDP):
        raise ValueError(
            f"{type(strategy).__name__} needs more than the mean of the updates, which alone is private: "
            "take another strategy, such as FedAvg, FedAdam or FedProx"
        )
