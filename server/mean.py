"""What a strategy makes of a round's replies, without copies of a model where that is their mean itself."""

from flwr.app import MetricRecord
from flwr.serverapp.strategy import FedAvg, Strategy

from server.cohort_result import CohortResult
from strategies.rule import Arrays
from strategies.wire.arrays import views


def takes_the_mean(strategy: Strategy) -> bool:
    """Return whether the strategy's new weights are the mean of the replies itself.

    Flower's FedAvg multiplies a single reply by 1.0, by way of seven copies of the model.
    """
    overridden = "aggregate_train" in vars(strategy)
    return not overridden and type(strategy).aggregate_train is FedAvg.aggregate_train


def aggregated(
    strategy: Strategy, server_round: int, cohort: CohortResult
) -> tuple[Arrays | None, MetricRecord | None]:
    """Return the new weights and the metrics that the strategy makes of the replies."""
    arrays, metrics = strategy.aggregate_train(server_round, cohort.replies)
    if cohort.mean is not None:
        return cohort.mean, metrics
    return None if arrays is None else views(arrays), metrics
