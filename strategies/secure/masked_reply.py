"""What a node that masks replies: one vector, of all that its clients would have told in sums.

The vector holds, one behind the other, the weighted sum of the arrays, the sum of the statistics, the weights
and the examples together, and for each metric the sum of weight times value and the weight of those that have
it. Nothing of that travels in plain.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from strategies.secure.fixed_point import LARGEST, limbs_of, size_of, total_of
from strategies.secure.modular import Limbs
from strategies.secure.wire import SECURE, record_of
from strategies.wire.arrays import hold, views
from strategies.wire.exact_sum import ExactSum
from strategies.wire.plan import record_at
from strategies.wire.records import LONGEST_TEXT, list_in
from strategies.wire.reply import ClientReply, NodeReply
from strategies.wire.reply_metrics import NUM_EXAMPLES, check_weight

MASKED = "masked"
"""Key of the vector."""
VECTOR = "vector"
SHAPES, STATISTICS, METRICS = "shapes", "statistics", "metrics"
"""Keys of what says how the vector is laid out."""
FIXED = 2
"""Numbers before those of the metrics: the weight, and the examples."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """What a vector holds, in order; vectors of one layout can be added up."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    """Of the arrays that are averaged, by name."""
    statistics: tuple[tuple[str, tuple[int, ...]], ...]
    """Of the statistics."""
    metrics: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many numbers the vector has."""
        arrays = size_of(dict(self.shapes)) + size_of(dict(self.statistics))
        return arrays + FIXED + 2 * len(self.metrics)


@dataclass(frozen=True)
class Together:
    """What all clients of a sum have told together, of whom nobody's own is known."""

    total: ExactSum
    statistics: ExactSum
    weight: float
    num_examples: int
    metrics: Mapping[str, float]
    """Means, and under the metric that clients are weighted by, its sum."""


def vector_of(
    reply: NodeReply, times: Callable[[int], int], names: Sequence[str], most: float = LARGEST
) -> tuple[Layout, Limbs]:
    """Return what a node's clients have trained and told, added up, before it is masked.

    Metrics in `names` stand in every vector, whether or not a client has them. No sum may reach `most`.
    """
    total, statistics = reply.total or ExactSum(), reply.statistics or ExactSum()
    more = {name for each in reply.replies for name in each.metrics}
    metrics = tuple(name for name in dict.fromkeys([*names, *sorted(more)]) if name != reply.weighted_by)
    numbers = ExactSum()
    for each in reply.replies:
        for _ in range(times(each.client)):
            numbers.add({METRICS: _numbers(each.metrics, reply.weighted_by, metrics)}, 1.0)
    # By name: nodes may have their arrays in another order.
    shapes, beside = (tuple(sorted(part.shapes.items())) for part in (total, statistics))
    parts = [limbs_of(_ordered(part), most) for part in (total, statistics)]
    vector = np.concatenate([*parts, limbs_of(numbers, most)], axis=1)
    return Layout(shapes, beside, metrics), vector


def together_of(layout: Layout, vector: Limbs, weighted_by: str) -> Together:
    """Return what the sum of vectors says; raise ValueError where no clients can have told it."""
    shapes, beside = dict(layout.shapes), dict(layout.statistics)
    ends = np.cumsum([size_of(shapes), size_of(beside)])
    arrays, statistics, numbers = np.split(vector, ends, axis=1)
    count = numbers.shape[1]
    (found,) = total_of(numbers, {METRICS: (count,)}, 1.0).mean().values()
    weight, examples = (float(each) for each in found[:FIXED])
    try:
        check_weight(weighted_by, weight)
        check_weight(NUM_EXAMPLES, examples)
    except ValueError as error:
        raise ValueError(
            f"the sum of all nodes makes no sense ({error}): one has masked another vector"
        ) from error
    pairs = zip(layout.metrics, found[FIXED::2], found[FIXED + 1 :: 2], strict=True)
    means = {name: float(value / of) for name, value, of in pairs if of > 0}
    return Together(
        total_of(arrays, shapes, weight),
        total_of(statistics, beside, examples) if beside else ExactSum(),
        weight,
        int(examples),
        {weighted_by: weight, **means},
    )


def pack(reply: NodeReply, layout: Layout, vector: Limbs) -> RecordDict:
    """Return the message of a masked vector: of single clients it says who has answered, and who failed."""
    silent = [ClientReply.made(each.client, {}, {}) for each in reply.replies]
    content = replace(reply, replies=silent, total=None, statistics=None).pack()
    said = {SHAPES: layout.shapes, STATISTICS: layout.statistics, METRICS: layout.metrics}
    content[SECURE] = ConfigRecord({key: json.dumps(value) for key, value in said.items()})
    content[MASKED] = hold({VECTOR: vector})
    return content


def unpack(content: RecordDict) -> tuple[Layout, Limbs]:
    """Return the layout and the masked vector of a message; raise ValueError for anything else."""
    record, arrays = record_of(content), record_at(content, MASKED, ArrayRecord)
    if sum(len(value) for value in record.values() if isinstance(value, str)) > LONGEST_TEXT:
        raise ValueError(f"its layout has more than {LONGEST_TEXT} characters")
    metrics = list_in(record, METRICS)
    if not all(isinstance(name, str) for name in metrics) or len(set(metrics)) < len(metrics):
        raise ValueError(f"its metrics must be names, each once, got {metrics!r:.80}")
    layout = Layout(_shapes(record, SHAPES), _shapes(record, STATISTICS), tuple(metrics))
    if arrays.keys() != {VECTOR}:
        raise ValueError(f"its masked sums must be one array, {VECTOR}")
    vector: NDArray[Any] = views(arrays)[VECTOR]
    if vector.shape != (2, layout.size) or vector.dtype != np.uint64:
        found = f"{vector.dtype} {[*vector.shape]}"
        raise ValueError(f"its masked vector must be uint64 {[2, layout.size]}, got {found}")
    return layout, vector


def _numbers(metrics: Mapping[str, Any], weighted_by: str, names: Sequence[str]) -> NDArray[np.float64]:
    """Return what one client tells in numbers, as it is added up."""
    for name in (weighted_by, NUM_EXAMPLES):
        check_weight(name, metrics.get(name, math.nan))
    weight = float(metrics[weighted_by])
    found = [weight, float(metrics[NUM_EXAMPLES])]
    for name in names:
        value = metrics.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            found += [weight * float(value), weight]
        else:
            found += [0.0, 0.0]
    return np.array(found)


def _ordered(total: ExactSum) -> ExactSum:
    """Return the same sum, with its arrays sorted by name."""
    return total.in_order_of(sorted(total.shapes))


def _shapes(record: ConfigRecord, key: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    shapes: dict[str, tuple[int, ...]] = {}
    for each in list_in(record, key):
        match each:
            case [str(name), list(axes)] if all(type(axis) is int and axis >= 0 for axis in axes):
                shapes[name] = tuple(axes)
            case _:
                raise ValueError(f"an array of its sum must have a name and a shape, got {each!r:.80}")
    return tuple(shapes.items())
