"""Records of a message: many clients' records in one message.

Clients that share a node get one message, in which a record that several of them share travels once. The
plan says which client gets which record under which name.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from strategies.wire.arrays import num_message_bytes

Kind = TypeVar("Kind", ArrayRecord, MetricRecord, ConfigRecord)


@dataclass(frozen=True)
class Form:
    """Shape and type of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


Forms = Mapping[str, Form]
"""Of weights, by name."""

PLAN = "plan"
"""Key of the record that says which client gets which records."""


def forms_of(arrays: Mapping[str, Array | NDArray[Any]]) -> Forms:
    """Return shapes and types of arrays."""
    return {name: Form(tuple(array.shape), np.dtype(array.dtype)) for name, array in arrays.items()}


def check_forms(arrays: Mapping[str, NDArray[Any]], weights: Forms) -> None:
    """Raise ValueError for a client's arrays that are not all the weights, and aux tensors beside them.

    They are floating numbers of the weights' shapes; aux tensors may be whole numbers.
    """
    if missing := sorted(weights.keys() - arrays.keys()):
        raise ValueError(f"it replies a part of the weights, without {missing[0]}")
    for key, array in arrays.items():
        _, beside, name = key.rpartition("/")
        if name not in weights:
            raise ValueError(f"it replies {key}, and there is no weight {name}")
        if array.shape != weights[name].shape:
            raise ValueError(
                f"it replies {key} of shape {[*array.shape]}, and {name} has {[*weights[name].shape]}"
            )
        if array.dtype.kind not in ("fiub" if beside else "f"):
            raise ValueError(f"it replies {key} of type {array.dtype}, which is no floating number")


def records_of(content: RecordDict, kind: type[Kind]) -> list[Kind]:
    """Return a message's records of one kind.

    Flower's own properties, such as `metric_records`, make a dictionary that writes back, key by key: that
    takes twenty times as long, and every client of a cohort is looked at several times.
    """
    return [record for record in content.values() if isinstance(record, kind)]


def num_bytes(content: RecordDict) -> int:
    """Return the size of the arrays in a message."""
    return sum(
        num_message_bytes(array) for record in records_of(content, ArrayRecord) for array in record.values()
    )


def num_value_bytes(record: ArrayRecord) -> int:
    """Return the size of a record's values, without what a message says of each array beside them."""
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in record.values())


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
    """Return the (client, content) pairs of `pack`, by client number.

    Clients with the same records share one content, which nobody may change.
    """
    pairs = []
    for group in json.loads(str(content.config_records[PLAN]["groups"])):
        records = RecordDict({name: content[key] for name, key in group["records"].items()})
        pairs += [(client, records) for client in group["clients"]]
    return sorted(pairs, key=lambda pair: pair[0])


def clients_of(content: RecordDict) -> list[int]:
    """Return the clients of `pack`, in order."""
    groups = json.loads(str(content.config_records[PLAN]["groups"]))
    return sorted(client for group in groups for client in group["clients"])
