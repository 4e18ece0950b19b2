"""Local differential privacy (Duchi, Jordan and Wainwright 2013, arXiv:1302.3203): nobody has to be trusted.

Every client clips its update and adds Gaussian noise to it by itself (the Gaussian mechanism, as in Abadi et
al. 2016, arXiv:1607.00133), before anything leaves it: w + clip(update) + N(0, (noise_multiplier *
clipping_norm)^2 I), over all arrays of the reply together.

Private are the arrays that a client has replied, against everybody, the server included, and with them
whatever any strategy makes of them. Neighbours are two clients with any data whatsoever, one in place of the
other, so that a reply moves by up to two clipping norms. Nothing is gained from sampling, as the server knows
whom it asked; the rounds of one client add up.

Not private are a client's metrics, such as its losses and its number of examples, and who took part. Every
client draws its noise from its operating system, anew for every reply.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.declaration import Declaration, declaration_of
from strategies.privacy.accountant import NORMS_MOVED, epsilon, least_noise
from strategies.privacy.budget import Budget, calibrate, check_positive, check_replies_can_be_clipped
from strategies.privacy.clipping import clip
from strategies.privacy.noise import (
    KEY_BYTES,
    NO_EPSILON,
    NOT_REPEATABLE,
    REPEATABLE,
    SECRET,
    Noise,
    check_kind,
)
from strategies.rule import Arrays, LocalRule
from strategies.wire.train_config import number

RULE = "strategies.privacy.local_dp:ClipAndNoise"
NORM, DEVIATION, KIND = "local-clipping-norm", "local-noise", "local-noise-kind"
"""Where clients find norm, deviation and kind of the noise among what the strategy says."""


class ClipAndNoise(LocalRule):
    """Clips what a client replies and adds noise to it; says nothing of how long the update was."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self.norm, self.deviation = number(config, NORM), number(config, DEVIATION)
        self.kind = str(config[KIND])

    def reply(
        self, arrays: Arrays, received: Arrays, generator: torch.Generator
    ) -> tuple[Arrays, dict[str, float]]:
        """Return the clipped weights with noise on every entry."""
        clipped, _ = clip(arrays, received, self.norm)
        if not self.deviation:
            return clipped, {}
        updates = {
            name: np.subtract(array, received[name], dtype=np.float64) for name, array in clipped.items()
        }
        noise = Noise(self.kind, lambda: _key(generator))
        noised = noise.add(updates, self.deviation, NORMS_MOVED * self.norm)
        return {
            name: np.asarray(received[name] + noised[name], array.dtype) for name, array in clipped.items()
        }, {}


def _key(generator: torch.Generator) -> bytes:
    return bytes(torch.randint(256, (KEY_BYTES,), generator=generator, dtype=torch.uint8).tolist())


@dataclass(eq=False)
class LocalDP(Strategy):
    """Any strategy, over clients that noise what they reply.

    `local-epsilon` is what those clients have spent that were asked most often, at `delta`.
    """

    strategy: Strategy
    """The strategy around which it stands, by its name or as a table with its options."""
    num_clients: InitVar[int]
    num_rounds: InitVar[int]
    clipping_norm: float
    """L2 norm that every client clips its update to."""
    noise_multiplier: float | None = None
    """Deviation of each client's noise, in clipping norms."""
    target_epsilon: float | None = None
    """Finds the noise for which a client that is asked in all `num_rounds` rounds spends that much."""
    delta: float | None = None
    """Delta at which epsilon is counted; num_clients**-1.1 unless given."""
    noise: str = SECRET
    """What noise is drawn from: "secret" (the operating system of every client), "discrete" (the same,
    rounded to a grid, by OpenDP), or "repeatable" (the run's seed, for studies; no epsilon holds)."""

    def __post_init__(self, num_clients: int, num_rounds: int) -> None:
        """Raise ValueError for numbers out of range.

        And for a strategy whose clients reply more than weights, or noise already.
        """
        check_replies_can_be_clipped(self.strategy)
        check_positive("clipping norm", self.clipping_norm)
        check_kind(self.noise)
        budget = calibrate(
            num_clients,
            self.noise_multiplier,
            self.target_epsilon,
            self.delta,
            lambda target, delta: least_noise(target, 1, 1, num_rounds, delta),
        )
        # Plain numbers, which checkpoints keep: a resumed run goes on with the noise that it began with.
        self.noise_multiplier, self.delta = budget.noise_multiplier, budget.delta
        if RULE in declaration_of(self.strategy).local_rules:
            raise ValueError(
                f"clients of {type(self.strategy).__name__} add noise already: LocalDP is needed once"
            )
        self.asked: dict[int, int] = {}
        """How often each client has been asked: where nodes reply sums, who answered cannot be told."""

    @property
    def budget(self) -> Budget:
        """Noise, and what it may cost."""
        return Budget(cast(float, self.noise_multiplier), cast(float, self.delta), self.target_epsilon)

    @property
    def declaration(self) -> Declaration:
        """The strategy's own, and clipping and noise after its rules."""
        declared = replace(declaration_of(self.strategy).around(RULE), private=True)
        if not self.budget.noise_multiplier:
            return declared
        remark = NO_EPSILON if self.noise == REPEATABLE else NOT_REPEATABLE.format("clients' noise is")
        return replace(declared, remarks=(*declared.remarks, remark))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send norm and noise, too, and count whom the strategy asks.

        Raises ValueError for a round in which a client would spend more than the target.
        """
        deviation = self.budget.noise_multiplier * self.clipping_norm
        config[NORM], config[DEVIATION], config[KIND] = self.clipping_norm, deviation, self.noise
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._count(message.metadata.dst_node_id for message in messages)
        if self.target_epsilon is not None:
            self.budget.check(server_round, self._spent())
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Leave it to the strategy; tell epsilon."""
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        spent = self._spent()
        told = math.isfinite(spent) and self.noise != REPEATABLE
        released = {"local-epsilon": spent} if told else {}
        return arrays, MetricRecord({**(metrics or {}), **released})

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

    def count_again(self, asked: Sequence[int], drawn_from: Sequence[float]) -> None:
        """Count a round that is done again: its noise was another, so both have been released."""
        if self.noise != REPEATABLE:
            self._count(asked)

    def _count(self, clients: Iterable[int]) -> None:
        for client in clients:
            self.asked[client] = self.asked.get(client, 0) + 1

    def _spent(self) -> float:
        """Return the epsilon of the clients that have been asked most often."""
        budget = self.budget
        if not budget.noise_multiplier or not self.asked:
            return math.inf
        rounds = max(self.asked.values())
        return epsilon(budget.noise_multiplier, cohort=1, rounds={1: rounds}, delta=budget.delta)
