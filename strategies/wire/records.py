"""Records of a message: many clients' records in one message.

Clients that share a node get one message, in which a record that several of them share travels once. The
plan says which client gets which record under which name.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
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
Groups = list[tuple[list[int], dict[str, str]]]
"""Clients, and what they get: name of a record -> its key in the message."""

PLAN = "plan"
"""Key of the record that says which client gets which records."""
GROUPS = "groups"
"""Key in the plan of who gets which records."""
LARGEST_ITEM = 8
"""Bytes of a number; wider ones are of one kind of processor alone."""
LONGEST_TEXT = 1_000_000
"""Characters of JSON in a plan that a message may have for each of its clients, and as many beside."""


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
        if array.dtype.itemsize > LARGEST_ITEM or not array.dtype.isnative:
            raise ValueError(f"it replies {key} of type {array.dtype.str}, which no model here has")


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
    content[PLAN] = ConfigRecord({GROUPS: json.dumps(plan)})
    return content


def unpack(content: RecordDict) -> list[tuple[int, RecordDict]]:
    """Return the (client, content) pairs of `pack`, by client number; raise ValueError for anything else.

    Clients with the same records share one content, which nobody may change.
    """
    return unpack_groups(content, groups_of(content))


def unpack_groups(content: RecordDict, groups: Groups) -> list[tuple[int, RecordDict]]:
    """Return the same of groups that were read before."""
    pairs = []
    for clients, names in groups:
        records = RecordDict({name: content[key] for name, key in names.items()})
        pairs += [(client, records) for client in clients]
    return sorted(pairs, key=lambda pair: pair[0])


def clients_of(content: RecordDict) -> list[int]:
    """Return the clients of `pack`, in order."""
    return sorted(client for clients, _ in groups_of(content) for client in clients)


def plan_of(content: RecordDict) -> ConfigRecord:
    """Return the plan of a message; raise ValueError where it has none."""
    plan = content.get(PLAN)
    if not isinstance(plan, ConfigRecord):
        raise ValueError(f"it has no plan, which says whose its records are: it has {listed(content)}")
    return plan


def groups_of(content: RecordDict) -> Groups:
    """Return which clients get which records.

    Raises ValueError for what is no such list, and for a record that is not there.
    """
    groups: Groups = []
    for group in list_in(plan_of(content), GROUPS):
        match group:
            case {"records": dict(names), "clients": list(clients)}:
                pass
            case _:
                raise ValueError(f"its plan must give clients their records, got {group!r:.80}")
        if odd := [client for client in clients if type(client) is not int]:
            raise ValueError(f"its plan names a client {odd[0]!r:.40}, which is no client's number")
        if lost := [key for key in names.values() if not (isinstance(key, str) and key in content)]:
            raise ValueError(f"its plan names a record {lost[0]!r:.40}, which it does not send")
        groups.append((clients, names))
    return groups


def list_in(plan: ConfigRecord, key: str) -> list[Any]:
    """Return the list that a text of a plan holds as JSON; raise ValueError for anything else."""
    text = plan.get(key)
    if not isinstance(text, str):
        raise ValueError(f"its plan has no text {key!r}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {key} are no JSON of a moderate depth: {text!r:.80}") from error
    if not isinstance(found, list):
        raise ValueError(f"its {key} must be a list, got {text!r:.80}")
    return found


def listed(names: Iterable[str]) -> str:
    """Return names that somebody else has given, as a part of a line."""
    shown = ", ".join(repr(name)[:40] for name in list(names)[:5])
    return shown or "none"
