"""How the messages of many clients travel as one: every record once, then who gets which.

The server packs what a strategy addresses to clients into one message a node; the ClientApp packs its
clients' replies the same way, and adds up their arrays where the strategy takes a weighted mean.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from strategies.wire.exact_sum import ExactSum

PLAN = "plan"
"""Key of the record that says which client gets which records."""
FIXED = "fixed"
"""Key of the record of weights that nobody trains and clients cannot build; strategies never see it."""
HIGH, LOW = "sum-high", "sum-low"
"""Keys of the two halves of a sum."""
SUMS = "sums"
"""Key of what a client found on its own rows, metric -> [total, weight]; PERSONAL + SUMS of its own model."""
UPDATES_IN_A_SUM = 4
"""Updates in float32 that are as large as one sum, of two float64 an element."""


def pack(contents: Sequence[tuple[int, RecordDict]]) -> RecordDict:
    """Pack (client, content) pairs; a record that several contents share travels once."""
    packed: dict[int, str] = {}
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    content = RecordDict()
    for client, records in contents:
        for record in records.values():
            if id(record) not in packed:
                packed[id(record)] = f"record-{len(packed)}"
                content[packed[id(record)]] = record
        layout = tuple((name, packed[id(record)]) for name, record in records.items())
        groups.setdefault(layout, []).append(client)
    plan = [{"records": dict(layout), "clients": clients} for layout, clients in groups.items()]
    content[PLAN] = ConfigRecord({"groups": json.dumps(plan)})
    return content


def unpack(content: RecordDict) -> list[tuple[int, RecordDict]]:
    """Return the (client, content) pairs of `pack`, by client number."""
    pairs = []
    for group in json.loads(str(content.config_records[PLAN]["groups"])):
        records = RecordDict({name: content[key] for name, key in group["records"].items()})
        pairs += [(client, records) for client in group["clients"]]
    return sorted(pairs, key=lambda pair: pair[0])


@dataclass
class Replies:
    """What the clients of one node answer to one message."""

    contents: list[tuple[int, RecordDict]] = field(default_factory=list)
    """(client, records) of every client that succeeded."""
    failures: dict[int, str] = field(default_factory=dict)
    """Client -> why it failed, in one line."""
    partial: ExactSum | None = None
    """The clients' arrays, weighted and added up; the contents then hold none.

    A few clients' arrays are better sent as they are: a sum is as large as UPDATES_IN_A_SUM of them.
    """
    seconds: float = 0.0
    """Time that the node computed."""

    def add(
        self,
        client: int,
        records: RecordDict,
        arrays: Mapping[str, NDArray[np.generic]] | None,
        weighted_by: str,
    ) -> None:
        """Add what a client replies; where there is a partial sum, its arrays go into that.

        Their weight in it is the entry `weighted_by` of the client's metrics.
        """
        if arrays is not None and self.partial is not None:
            self.partial.add(arrays, weight_of(records, weighted_by))
        elif arrays is not None:
            records["arrays"] = to_record(arrays)
        self.contents.append((client, records))

    def pack(self) -> RecordDict:
        """Return the records of the reply message."""
        content = pack(self.contents)
        plan = content.config_records[PLAN]
        plan["failures"] = json.dumps(self.failures)
        plan["seconds"] = self.seconds
        if self.partial is not None and self.contents:
            plan["weight"] = self.partial.weight
            content[HIGH] = to_record(self.partial.high)
            content[LOW] = to_record(self.partial.low)
        return content

    @staticmethod
    def unpack(content: RecordDict) -> "Replies":
        """Return what `pack` packed."""
        plan = content.config_records[PLAN]
        failures = {int(client): why for client, why in json.loads(str(plan["failures"])).items()}
        partial = None
        if "weight" in plan:
            partial = ExactSum()
            partial.weight = float(plan["weight"])  # type: ignore[arg-type]
            partial.high = to_arrays(content.array_records[HIGH])
            partial.low = to_arrays(content.array_records[LOW])
        return Replies(unpack(content), failures, partial, float(plan["seconds"]))  # type: ignore[arg-type]


def add_update(total: ExactSum, content: RecordDict, weighted_by: str) -> None:
    """Add one client's arrays to a sum, weighted by an entry of its metrics."""
    (arrays,) = content.array_records.values()
    total.add(to_arrays(arrays), weight_of(content, weighted_by))


def weight_of(content: RecordDict, weighted_by: str) -> float:
    """Return the weight of a client's update."""
    (metrics,) = content.metric_records.values()
    return float(metrics[weighted_by])  # type: ignore[arg-type]


def mean_metrics(contents: Sequence[RecordDict], weighted_by: str) -> MetricRecord:
    """Return the weighted means of the clients' metrics, and the sum of their weights."""
    total = sum(weight_of(content, weighted_by) for content in contents)
    names = [name for name in next(iter(contents[0].metric_records.values())) if name != weighted_by]
    merged = MetricRecord({weighted_by: total})
    for name in names:
        terms = [
            weight_of(content, weighted_by) * float(next(iter(content.metric_records.values()))[name])  # type: ignore[arg-type]
            for content in contents
        ]
        merged[name] = sum(terms) / total
    return merged


def to_record(arrays: Mapping[str, NDArray[np.generic]]) -> ArrayRecord:
    """Wrap arrays for a message, copying them."""
    # NumPy turns a result without axes into a number, which is no array to Flower.
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def to_arrays(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Unwrap a message's arrays."""
    return {name: array.numpy() for name, array in record.items()}


def num_bytes(content: RecordDict) -> int:
    """Return the size of the arrays in a message."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())
