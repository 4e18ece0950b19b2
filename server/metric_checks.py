"""What clients tell in numbers beside their weights, checked: counts, losses, metrics and sums of metrics."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.core.errors import shown
from models.core.tracebacks import line_of
from models.task import Metrics
from strategies.wire.reply import SUMS
from strategies.wire.reply_metrics import NUM_EXAMPLES, check_weight, weight_among

MOST_METRICS = 10_000
"""Metrics of one client."""
LONGEST_NAME = 200
"""Characters of a metric's name."""
LARGEST_SUM = 1e300
"""No sum of a metric is larger in size, so that those of a million clients together are finite."""


@dataclass(frozen=True)
class Expected:
    """What every client must tell, and may tell at most."""

    weights: Collection[str] = ()
    """Metrics in training that the strategy weights clients by."""
    losses: Collection[str] = ()
    """Metrics in training that it computes with."""
    ratios: Callable[[Metrics], Mapping[str, float]] | None = None
    """Turns the sums of an evaluation into metrics; None is that nobody looks at them."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Metrics in training that every client must tell -> the least and the most that they may be."""
    flags: Collection[str] = ()
    """Metrics in training that every client tells as 0 or 1."""
    aux: bool = True
    """Whether clients may reply aux tensors beside the weights."""
    compression: str = ""
    """How what single clients reply is compressed."""
    max_update_norm: float = math.inf
    """L2 norm that updates are clipped to."""
    max_examples: float = math.inf
    """Examples that a client may have trained on."""


def check_train_metrics(metrics: Mapping[str, Any], expected: Expected, weighted_by: str) -> None:
    """Raise ValueError for metrics of a training that cannot be used."""
    for name in sorted({NUM_EXAMPLES, *expected.weights, weighted_by} - {""}):
        check_weight(name, weight_among(metrics, name))
    if metrics[NUM_EXAMPLES] > expected.max_examples:
        raise ValueError(
            f"it says {metrics[NUM_EXAMPLES]} examples, more than max-examples ({expected.max_examples:g})"
        )
    for name in expected.losses:
        if not math.isfinite(weight_among(metrics, name)):
            raise ValueError(f"its {name} is {metrics[name]}")
    for name, (least, most) in expected.ranges.items():
        if not least <= weight_among(metrics, name) <= most:
            raise ValueError(f"its {name} must be {least:g} to {most:g}, got {metrics[name]:g}")
    for name in expected.flags:
        if metrics[name] not in (0, 1):
            raise ValueError(f"its {name} must be 0 or 1, got {metrics[name]:g}")
    check_metrics(metrics)


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Raise ValueError for what is no metric of a name that fits a line, or no finite number."""
    if len(metrics) > MOST_METRICS:
        raise ValueError(f"it tells {len(metrics)} metrics, and may tell {MOST_METRICS}")
    for name, value in metrics.items():
        if not (name.isprintable() and 0 < len(name) <= LONGEST_NAME):
            allowed = f"1 to {LONGEST_NAME} printable characters"
            raise ValueError(f"a metric's name must have {allowed}, got {name!r:.80}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"its {name} must be a number, got {value!r:.40}")
        if not (math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63):
            raise ValueError(f"its {name} must be finite and of 64 bits, got {shown(value):.40}")


def check_sums(others: Mapping[str, Any], expected: Expected) -> None:
    """Raise ValueError for what a client has found on its own examples and no metrics can be made of."""
    if SUMS not in others:
        raise ValueError(f"it has no {SUMS} of its metrics")
    for record in others.values():
        sums = {name: _pair(name, pair) for name, pair in record.items()}
        check_metrics({name: total for name, (total, _) in sums.items()})
        if sums and expected.ratios is not None:
            try:
                expected.ratios(sums)
            except Exception as error:
                raise ValueError(f"no metrics can be made of its sums: {line_of(error)}") from error


def _pair(name: str, pair: Any) -> tuple[float, float]:
    """Return a sum of a metric and its weight."""
    match pair:
        case [int() | float() as total, int() | float() as weight]:
            check_weight(name, weight)
            if not abs(total) <= LARGEST_SUM:
                raise ValueError(f"its sum of {name} must be at most {LARGEST_SUM:g} in size, got {total:g}")
            return float(total), float(weight)
    raise ValueError(f"{name} must be a sum and its weight, got {pair!r:.40}")
