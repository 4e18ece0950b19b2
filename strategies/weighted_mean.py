"""Which strategies need nothing but the weighted mean of the updates."""

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

# Flower's classes that read nothing of the replies but their weighted mean. By exact class: a subclass
# may look at single updates, and says so by not setting `weighted_mean = True` in its own body.
WEIGHTED_MEANS = frozenset(
    {flower.FedAdagrad, flower.FedAdam, flower.FedAvg, flower.FedAvgM, flower.FedProx, flower.FedYogi}
)


def takes_weighted_mean(strategy: Strategy) -> bool:
    """Whether nodes may send this strategy the sum of their clients' updates instead of each one."""
    cls = type(strategy)
    # Asked of the strategy itself, as one that wraps another may say what that one says.
    return cls in WEIGHTED_MEANS or ("weighted_mean" in vars(cls) and bool(strategy.weighted_mean))  # type: ignore[attr-defined]
