"""Local differential privacy (Duchi, Jordan and Wainwright 2013, arXiv:1302.3203): nobody has to be trusted.

Every client clips its update and adds Gaussian noise to it by itself (the Gaussian mechanism, as in Abadi et
al. 2016, arXiv:1607.00133), before anything leaves it: w + clip(update) + N(0, (noise_multiplier *
clipping_norm)^2 I), over all arrays of the reply together.

Private are the arrays that a client has replied, against everybody, the server included, and with them
whatever any strategy makes of them. Neighbours are two clients with any data whatsoever, one in place of the
other, so that a reply moves by up to two clipping norms. Nothing is gained from sampling, as the server knows
whom it asked; the rounds of one client add up.

Not private are a client's metrics, such as its losses and its number of examples, and who took part. The
noise is drawn from the run's seed, so that runs repeat: epsilon is what the mechanism is worth against those
who do not know the seed. Who simulates a federation knows it, and could take the noise off again.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.privacy.accountant import epsilon, least_noise
from strategies.privacy.clipping import clip
from strategies.privacy.private import PrivateStrategy
from strategies.rule import Arrays, LocalRule, in_turn
from strategies.weighted_mean import takes_weighted_mean

RULE = "strategies.privacy.local_dp:ClipAndNoise"
NORM, DEVIATION = "local-clipping-norm", "local-noise"
"""Where clients find the norm, and the deviation of the noise, among what the strategy says."""


class ClipAndNoise(LocalRule):
    """Clips what a client replies and adds noise to it; says nothing of how long the update was."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self.norm, self.deviation = (float(str(config[key])) for key in (NORM, DEVIATION))

    def reply(
        self, arrays: Arrays, received: Arrays, generator: torch.Generator
    ) -> tuple[Arrays, dict[str, float]]:
        """Return the clipped weights with noise on every entry."""
        clipped, _ = clip(arrays, received, self.norm)
        if not self.deviation:
            return clipped, {}
        noised = {}
        for name, array in clipped.items():
            noise = torch.randn(array.shape, generator=generator, dtype=torch.float64).numpy()
            noised[name] = np.asarray(array + self.deviation * noise, array.dtype)
        return noised, {}


class LocalDP(PrivateStrategy):
    """Any strategy, over clients that noise what they reply.

    `local-epsilon` is what those clients have spent that were asked most often, at `delta`.
    """

    def __init__(
        self,
        strategy: Strategy,
        num_clients: int,
        num_rounds: int,
        clipping_norm: float,
        noise_multiplier: float | None = None,
        target_epsilon: float | None = None,
        delta: float | None = None,
    ) -> None:
        """Wrap a strategy.

        `noise_multiplier` is the deviation of each client's noise, in clipping norms; `target_epsilon` finds
        the one for which a client that is asked in all `num_rounds` rounds spends that much at `delta`
        (num_clients**-1.1 unless given). Raises ValueError for a strategy whose clients reply more than
        weights, or noise already, and for numbers out of range.
        """
        super().__init__(
            strategy,
            num_clients,
            clipping_norm,
            noise_multiplier,
            target_epsilon,
            delta,
            lambda target, delta: least_noise(target, 1, 1, num_rounds, delta),
        )
        if RULE in super().local_rule.split("+"):
            raise ValueError(
                f"clients of {type(strategy).__name__} add noise already: LocalDP is needed once"
            )
        self.asked: dict[int, int] = {}
        """How often each client has been asked: where nodes reply sums, who answered cannot be told."""

    @property
    def weighted_mean(self) -> bool:
        """Whether the strategy needs no more than the weighted mean."""
        return takes_weighted_mean(self.strategy)

    @property
    def weighted_by_key(self) -> str:
        """What the strategy weights by."""
        return str(getattr(self.strategy, "weighted_by_key", ""))

    @property
    def local_rule(self) -> str:
        """The strategy's rule, then clipping and noise."""
        return in_turn(super().local_rule, RULE)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send norm and noise, too, and count whom the strategy asks.

        Raises ValueError for a round in which a client would spend more than the target.
        """
        config[NORM], config[DEVIATION] = self.clipping_norm, self.noise_multiplier * self.clipping_norm
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        for message in messages:
            client = message.metadata.dst_node_id
            self.asked[client] = self.asked.get(client, 0) + 1
        if self.target_epsilon is not None:
            self.check_target(server_round, self._spent())
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Leave it to the strategy; tell epsilon."""
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        spent = self._spent()
        told = {"local-epsilon": spent} if math.isfinite(spent) else {}
        return arrays, MetricRecord({**(metrics or {}), **told})

    def _spent(self) -> float:
        """Return the epsilon of the clients that have been asked most often."""
        if not self.noise_multiplier or not self.asked:
            return math.inf
        rounds = max(self.asked.values())
        return epsilon(self.noise_multiplier, cohort=1, rounds={1: rounds}, delta=self.delta)
