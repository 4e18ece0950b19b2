"""The metrics of client replies: what a client is weighted by, and means over the clients."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, MetricRecord, RecordDict

from strategies.wire.arrays import views
from strategies.wire.exact_sum import ExactSum
from strategies.wire.records import records_of

NUM_EXAMPLES = "num-examples"
"""Metric that statistics are weighted by, whatever the strategy weights by."""
LARGEST_WEIGHT = 2.0**53
"""No client has as many examples: from here on float64 skips whole numbers."""


def add_update(total: ExactSum, content: RecordDict, weighted_by: str) -> None:
    """Add one client's arrays to a sum, weighted by an entry of its metrics."""
    (arrays,) = records_of(content, ArrayRecord)
    total.add(views(arrays), weight_of(content, weighted_by))


def check_weight(name: str, weight: float) -> None:
    """Raise ValueError for a number that nothing can be weighted by, or that is no count of anything."""
    if not 0 <= weight < LARGEST_WEIGHT:
        raise ValueError(f"{name} must be >= 0 and finite, got {weight:g}")
    if name == NUM_EXAMPLES and not float(weight).is_integer():
        raise ValueError(f"{name} must be a whole number, got {weight:g}")


def weight_of(content: RecordDict, weighted_by: str) -> float:
    """Return the weight of a client's update."""
    return weight_among(metrics_of(content), weighted_by)


def weight_among(metrics: Mapping[str, Any], weighted_by: str) -> float:
    """Return the metric that a client is weighted by; raise ValueError where it is not among them."""
    if weighted_by not in metrics:
        raise ValueError(f"no metric {weighted_by!r} to weight by among {', '.join(sorted(metrics))}")
    weight = metrics[weighted_by]
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(f"{weighted_by} must be a number, got {weight!r:.40}")
    if isinstance(weight, int) and abs(weight) >= LARGEST_WEIGHT:  # it may have any number of digits
        return math.inf if weight > 0 else -math.inf
    return float(weight)


def mean_metrics(contents: Sequence[RecordDict], weighted_by: str) -> MetricRecord:
    """Return the weighted means of the clients' metrics, and the sum of their weights.

    A metric that some of them do not have is the mean over the others.
    """
    return mean_of([metrics_of(content) for content in contents], weighted_by)


def mean_of(replied: Sequence[Mapping[str, Any]], weighted_by: str) -> MetricRecord:
    """Return the same of metrics that are not in records."""
    names = [name for name in metric_names(replied) if name != weighted_by]
    total = sum(weight_among(metrics, weighted_by) for metrics in replied)
    return MetricRecord({weighted_by: total, **_means(replied, names, weighted_by)})


def metrics_of(content: RecordDict) -> MetricRecord:
    """Return the metrics of a client's reply."""
    (metrics,) = records_of(content, MetricRecord)
    return metrics


def metric_names(replied: Iterable[Mapping[str, Any]]) -> dict[str, None]:
    """Return the names of all metrics that clients have, in the order in which they come."""
    return {name: None for metrics in replied for name in metrics}


def drop_partial_metrics(contents: Sequence[RecordDict], weighted_by: str) -> dict[str, float]:
    """Take the metrics out of the replies that only some of the clients have, and return their means.

    A loss has no value for a client without a term of it, and Flower's strategies want all clients to have
    the same metrics.
    """
    replied = [metrics_of(content) for content in contents]
    names = metric_names(replied)
    partial = [name for name in names if any(name not in metrics for metrics in replied)]
    if not partial:
        return {}
    means = _means(replied, partial, weighted_by)
    for metrics in replied:
        for name in partial:
            metrics.pop(name, None)
    return means


def _means(replied: Sequence[Mapping[str, Any]], names: Iterable[str], weighted_by: str) -> dict[str, float]:
    means = {}
    for name in names:
        # A list has no mean.
        found = [each for each in replied if isinstance(each.get(name), int | float)]
        having = [(weight_among(each, weighted_by), each[name]) for each in found]
        if total := sum(weight for weight, _ in having):
            means[name] = sum(weight * float(value) for weight, value in having) / total
    return means
