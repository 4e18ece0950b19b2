"""Differential privacy of clients against whoever sees the model (McMahan et al. 2018, arXiv:1710.06963).

Updates are clipped, averaged with equal weights and noised, and only then does a strategy see them, so that
whatever it makes of them is private too. The names and options are those of Flower's four wrappers, which
noise what the strategy returns instead: an FedAdam's step, or a mean weighted by examples, may move further
than their noise allows for. docs/decisions.md tells the other differences.

The guarantee is for the weights, against anybody. Noise is drawn from the operating system, and so are the
cohorts: epsilon counts on nobody knowing who trained, and a seed in a published config would tell. Metrics of
clients, such as their losses, are not noised.
"""

import math
import random
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from typing import ClassVar, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.declaration import Declaration, declaration_of
from strategies.privacy.accountant import NORMS_MOVED, epsilon, least_noise
from strategies.privacy.amplification import why_not_amplified
from strategies.privacy.budget import DRAWN_FROM, Budget, calibrate, check_replies_can_be_clipped
from strategies.privacy.clipping import CLIENTS, CLIPPED, NORM, ClippingPlace, OnClients, OnServer
from strategies.privacy.noise import (
    KEY_BYTES,
    NO_EPSILON,
    NOT_REPEATABLE,
    REPEATABLE,
    SECRET,
    Noise,
    check_kind,
)
from strategies.privacy.norms import FixedNorm, NormPolicy
from strategies.wire.arrays import to_arrays, to_record
from strategies.wire.exact_sum import ExactSum
from strategies.wire.reply_metrics import add_update, mean_metrics


@dataclass(eq=False)
class CentralDP(Strategy):
    """Hands a strategy the noised mean of clipped updates, as the reply of a single client.

    A client that fails counts as one that has not moved: the mean is always over `num_sampled_clients`, as
    one over fewer clients would depend more on each of them than the noise allows for.
    """

    place: ClassVar[ClippingPlace]
    """Who clips."""

    strategy: Strategy
    """The strategy around which it stands, by its name or as a table with its options."""
    num_sampled_clients: int
    num_clients: InitVar[int]
    num_rounds: InitVar[int]
    clipping_norm: float
    """L2 norm that this round's updates are clipped to."""
    _: KW_ONLY
    noise_multiplier: float | None = None
    """Deviation of the noise on the sum of updates, in clipping norms."""
    target_epsilon: float | None = None
    """Finds the noise for which `num_rounds` rounds cost that much."""
    delta: float | None = None
    """Delta at which epsilon is counted; num_clients**-1.1 unless given."""
    noise: str = SECRET
    """What noise and cohorts are drawn from: "secret" (the operating system), "discrete" (the same, rounded
    to a grid, by OpenDP), or "repeatable" (the run's seed, for studies; no epsilon holds)."""

    def __post_init__(self, num_clients: int, num_rounds: int) -> None:
        """Raise ValueError for a strategy that is not private even so, and for numbers out of range."""
        _check_mean_is_enough(self.strategy)
        check_replies_can_be_clipped(self.strategy)
        check_kind(self.noise)
        self.rounds: dict[int, int] = {}
        """How many rounds drew their cohort from that many clients."""
        self._asked_for = (self.noise_multiplier, self.target_epsilon, self.delta, num_clients, num_rounds)
        self._calibrate(why_not_amplified(self.strategy))

    def forgo_sampling(self, reason: str) -> None:
        """Count epsilon without what sampling gains, and find the noise for it where it was to be found."""
        if not self.unamplified:
            self._calibrate(reason)

    def _calibrate(self, unamplified: str) -> None:
        noise_multiplier, target_epsilon, delta, num_clients, num_rounds = self._asked_for
        cohort = self.num_sampled_clients
        self.unamplified = unamplified if cohort < num_clients else ""
        """Why sampling gains nothing; "" where it does, or everybody is asked."""
        amplified = not self.unamplified

        def least(target: float, delta: float) -> float:
            size = cohort if amplified else num_clients
            return least_noise(target, size, num_clients, num_rounds, delta)

        budget = calibrate(num_clients, noise_multiplier, target_epsilon, delta, least)
        # Plain numbers, which checkpoints keep: a resumed run goes on with the noise that it began with.
        self.noise_multiplier, self.delta = budget.noise_multiplier, budget.delta
        self.norm_policy.check(budget.noise_multiplier)
        self.clipping_norm = self.norm_policy.first

    @property
    def norm_policy(self) -> NormPolicy:
        """Which norm each round clips to."""
        return FixedNorm(self.clipping_norm)

    @property
    def budget(self) -> Budget:
        """Noise, and what it may cost."""
        return Budget(cast(float, self.noise_multiplier), cast(float, self.delta), self.target_epsilon)

    @property
    def update_noise(self) -> float:
        """Deviation of the noise on the sum of updates, in clipping norms."""
        return self.norm_policy.update_noise(self.budget.noise_multiplier)

    @property
    def declaration(self) -> Declaration:
        """The strategy's own, what clipping needs, and what is to be known of its noise."""
        declared = self.place.declare(declaration_of(self.strategy))
        remarks = (*declared.remarks, *self._remarks())
        # Asynchronous rounds ask as many clients as places get free, and may count one twice.
        return replace(declared, private=True, asynchronous=False, remarks=remarks)

    def count_again(self, asked: Sequence[int], drawn_from: Sequence[float]) -> None:
        """Count a round that is done again: its noise was another, so both have been released.

        Where nobody has said how many its cohort was drawn from, sampling gains it nothing.
        """
        if self.noise != REPEATABLE:
            population = int(drawn_from[0]) if drawn_from else self.num_sampled_clients
            self.rounds[population] = self.rounds.get(population, 0) + 1

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the weights that updates start from, and how many clients the cohort is drawn from.

        Raises ValueError for a cohort of another size than the noise is made for, and for a round that
        would cost more than the target: one that was not planned for, or drawn from too few clients.
        """
        self.place.announce(config, self.clipping_norm)
        self._weights = to_arrays(arrays)
        if self.noise != REPEATABLE:
            # From the operating system: who knows the run's seed does not know who is asked.
            random.seed()
            np.random.seed()
        before = len(list(grid.get_node_ids()))
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        if len(messages) != self.num_sampled_clients:
            raise ValueError(
                f"the noise is made for {self.num_sampled_clients} clients a round, and "
                f"{type(self.strategy).__name__} asked {len(messages)}"
            )
        if len({message.metadata.dst_node_id for message in messages}) < len(messages):
            raise ValueError(
                f"the noise hides clients that count once a round, and "
                f"{type(self.strategy).__name__} asked one of them several times"
            )
        # Nodes may have come or gone while the strategy waited for enough of them: the fewest count.
        self._population = max(len(messages), min(before, len(list(grid.get_node_ids()))))
        if self.target_epsilon is not None:
            self.budget.check(server_round, self._epsilon_after(self._population))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Give the strategy w + (sum of clipped updates + noise) / num_sampled_clients; tell epsilon."""
        answered = [reply for reply in replies if reply.has_content()]
        if not answered:
            return None, None
        contents = [reply.content for reply in answered]
        total, metrics = _sum(self.place.clipped(contents, self._weights, self.clipping_norm))
        num_clients, clipped = total.weight, float(metrics.pop(CLIPPED))  # type: ignore[arg-type]
        share = num_clients / self.num_sampled_clients
        deviation = self.update_noise * self.clipping_norm / self.num_sampled_clients
        mean, old, noise = total.mean(), self._weights, self._noise
        moved = NORMS_MOVED * self.clipping_norm / self.num_sampled_clients
        updates = {name: share * np.subtract(mean[name], old[name], dtype=np.float64) for name in old}
        noised = noise.add(updates, deviation, moved)
        private = {name: np.asarray(old[name] + noised[name]) for name in old}  # may be without axes
        spent = self._epsilon_after(self._population)
        self.rounds[self._population] = self.rounds.get(self._population, 0) + 1
        released: dict[str, float | list[int]] = {CLIPPED: clipped, NORM: self.clipping_norm}
        if math.isfinite(spent) and self.noise != REPEATABLE:
            released |= {"epsilon": spent, DRAWN_FROM: [self._population]}
        self.clipping_norm = self.norm_policy.next_norm(self.clipping_norm, num_clients, clipped, noise)
        del metrics[CLIENTS]
        alone = copy(answered[0])
        alone.content = RecordDict({"arrays": to_record(private), "metrics": metrics})
        arrays, merged = self.strategy.aggregate_train(server_round, [alone])
        return arrays, MetricRecord({**(merged or {}), **released})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Leave it to the strategy."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Leave it to the strategy."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Leave it to the strategy."""
        self.strategy.summary()

    def _epsilon_after(self, population: int) -> float:
        """Return what the rounds so far have cost, and one more that draws from that many clients."""
        budget = self.budget
        if not budget.noise_multiplier:
            return math.inf
        rounds = {**self.rounds, population: self.rounds.get(population, 0) + 1}
        amplified = not self.unamplified
        return epsilon(budget.noise_multiplier, self.num_sampled_clients, rounds, budget.delta, amplified)

    @property
    def _noise(self) -> Noise:
        return Noise(self.noise, lambda: np.random.bytes(KEY_BYTES))

    def _remarks(self) -> Iterable[str]:
        if not self.budget.noise_multiplier:
            return
        if self.noise == REPEATABLE:
            yield NO_EPSILON
            return
        yield NOT_REPEATABLE.format("noise and cohorts are")
        if self.unamplified:
            yield f"epsilon counts nothing for sampling: {self.unamplified}"


class DifferentialPrivacyServerSideFixedClipping(CentralDP):
    """Central DP; the server clips updates to `clipping_norm`."""

    place = OnServer()


class DifferentialPrivacyClientSideFixedClipping(CentralDP):
    """Central DP; clients clip their updates to `clipping_norm`."""

    place = OnClients()
    declaration = CentralDP.declaration  # stated again: the weighted mean is enough for this class


def _sum(contents: Sequence[RecordDict]) -> tuple[ExactSum, MetricRecord]:
    """Return the sum of clipped replies, and the means of their metrics."""
    total = ExactSum()
    for content in contents:
        add_update(total, content, CLIENTS)
    return total, mean_metrics(contents, CLIENTS)


def _check_mean_is_enough(strategy: Strategy) -> None:
    """Raise ValueError for a strategy to which a client is not hidden by noise on the mean."""
    if not declaration_of(strategy).weighted_mean or isinstance(strategy, CentralDP):
        raise ValueError(
            f"{type(strategy).__name__} needs more than the mean of the updates, which alone is private: "
            "take another strategy, such as FedAvg, FedAdam or FedProx"
        )
