"""What strategies for privacy share: a budget, and what they leave to the strategy that they wrap."""

import math
from collections.abc import Callable, Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch.optim import Optimizer

from strategies.privacy.accountant import usual_delta


class PrivateStrategy(Strategy):
    """Clips updates to `clipping_norm`, and adds noise of `noise_multiplier` norms, where a subclass says."""

    def __init__(
        self,
        strategy: Strategy,
        num_clients: int,
        clipping_norm: float,
        noise_multiplier: float | None,
        target_epsilon: float | None,
        delta: float | None,
        least_noise: Callable[[float, float], float],
    ) -> None:
        """Wrap a strategy; `least_noise` finds the multiplier for (`target_epsilon`, `delta`).

        `delta` is num_clients**-1.1 unless given. Raises ValueError for a strategy whose clients reply what
        cannot be clipped, and for numbers out of range.
        """
        if getattr(strategy, "replies_beside", False):
            raise ValueError(
                f"clients of {type(strategy).__name__} reply more than weights, which no clipping bounds: "
                "take another strategy, such as FedAvg, FedAdam or FedProx"
            )
        _check_positive("clipping norm", clipping_norm)
        if (noise_multiplier is None) == (target_epsilon is None):
            raise ValueError("give noise_multiplier or target_epsilon, one of the two")
        self.delta = usual_delta(num_clients) if delta is None else delta
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must be > 0 and < 1, got {self.delta}")
        if target_epsilon is not None:
            _check_positive("target_epsilon", target_epsilon)
            noise_multiplier = least_noise(target_epsilon, self.delta)
        elif noise_multiplier:  # none at all is allowed: clipping alone
            _check_positive("noise_multiplier", noise_multiplier)
        self.strategy = strategy
        self.clipping_norm = clipping_norm
        self.noise_multiplier = noise_multiplier or 0.0
        self.target_epsilon = target_epsilon

    def check_target(self, server_round: int, after: float) -> None:
        """Raise ValueError for a round after which epsilon would be beyond the target."""
        if self.target_epsilon is not None and after > self.target_epsilon:
            raise ValueError(
                f"round {server_round} would bring epsilon to {after:.4g}, beyond target_epsilon"
            )

    @property
    def local_rule(self) -> str:
        """The strategy's client half."""
        return str(getattr(self.strategy, "local_rule", ""))

    @property
    def personal_rule(self) -> str:
        """The rule of the clients' own models, which stay with them and need no noise."""
        return str(getattr(self.strategy, "personal_rule", ""))

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Raise ValueError where the strategy does."""
        check = getattr(self.strategy, "check_optimizer", None)
        if check is not None:
            check(optimizer)

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


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be > 0 and finite, got {value}")
