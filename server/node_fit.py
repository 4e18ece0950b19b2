"""Whether what a node says of its model and its data fits the run."""

from collections.abc import Sequence
from typing import Protocol

from models.data.labels import Labels
from strategies.wire.node import DataDescription, NodeDescription

SHOWN = 3
"""Names that a reason lists."""


class Wanted(Protocol):
    """What every node must have; the names are those of `NodeRegistry`."""

    num_clients: int
    data: str
    state: tuple[str, ...]
    interchangeable: bool
    examples: DataDescription | None
    open_labels: Labels | None


def misfit(said: NodeDescription, wanted: Wanted) -> str:
    """Return why a node cannot take part, for its numbers or for its data; "" for one that can."""
    return _wrong_place(said, wanted) or _wrong_data(said, wanted)


def _wrong_place(said: NodeDescription, wanted: Wanted) -> str:
    number, of = said.partition_id, said.num_partitions
    if not 0 <= number < of:
        return f"partition-id {number} is not one of 0 to {of - 1}, as num-partitions is {of}"
    if said.clients:
        return _wrong_clients(said, wanted)
    if said.own_data and wanted.num_clients != of:
        return (
            f"it has its own data, so it is one client: set num-clients={of}, or start the nodes with "
            "clients in their --node-config"
        )
    if wanted.num_clients < of and not wanted.interchangeable:
        return (
            f"num-clients is {wanted.num_clients}, fewer than the nodes that host them (num-partitions={of})"
        )
    return ""


def _wrong_clients(said: NodeDescription, wanted: Wanted) -> str:
    """Return what is wrong with the numbers of clients that a node lists."""
    if not said.own_data:
        return "it lists its clients, and has no data of theirs"
    if len(set(said.clients)) < len(said.clients):
        return "it lists a client twice"
    last = wanted.num_clients - 1
    if strange := [client for client in said.clients if not 0 <= client <= last]:
        return f"its client {strange[0]} is not one of 0 to {last}, as num-clients is {wanted.num_clients}"
    return ""


def has_other_labels(said: NodeDescription, wanted: Wanted) -> bool:
    """Return whether a node's own data has other labels than the server's, on which all have to agree."""
    if wanted.open_labels is None or wanted.examples is None or said.examples is None or not said.own_data:
        return False
    return said.examples.kind == wanted.examples.kind and said.examples.classes != wanted.examples.classes


def _wrong_data(said: NodeDescription, wanted: Wanted) -> str:
    if has_other_labels(said, wanted):
        return _wrong_but_for_labels(said, wanted)
    unlike = _unlike(wanted.examples, said.examples) if wanted.examples and said.examples else ""
    if said.own_data and said.examples and not said.examples.num_examples:
        return "its data has no examples to train on"
    if said.state != wanted.state:
        return f"it builds another model than the server: {unlike or 'same code and options there?'}"
    if said.own_data:
        return unlike
    return (
        "" if said.data == wanted.data else "it loaded other data than the server: same dataset files there?"
    )


def _wrong_but_for_labels(said: NodeDescription, wanted: Wanted) -> str:
    """Return what is wrong whatever labels are agreed on; the model is compared once they are."""
    assert wanted.open_labels
    assert wanted.examples
    assert said.examples
    try:
        wanted.open_labels.check(said.examples.classes)
    except ValueError as error:
        return f"the labels of its data cannot be taken: {error}"
    if not said.examples.num_examples:
        return "its data has no examples to train on"
    return _unlike(wanted.examples, said.examples.model_copy(update={"classes": wanted.examples.classes}))


def _unlike(wanted: DataDescription, said: DataDescription) -> str:
    """Return the first thing in which data is of another kind than the server's; "" where there is none."""
    if said.kind != wanted.kind:
        return f"its data are {said.kind}, and the server's {wanted.kind}"
    if said.classes != wanted.classes:
        return _other_labels(said.classes, wanted.classes)
    if said.columns.keys() != wanted.columns.keys():
        return f"its examples have {_names([*said.columns])}, and the server's {_names([*wanted.columns])}"
    for name, shape in wanted.columns.items():
        if said.columns[name] != shape:
            return f"{name} of its examples is of shape {said.columns[name]}, and {shape} on the server"
    return ""


def _other_labels(said: Sequence[str], wanted: Sequence[str]) -> str:
    more = [name for name in said if name not in wanted]
    less = [name for name in wanted if name not in said]
    if not more and not less:
        return "its data has the server's labels in another order"
    parts = [f"has labels that the server's data has not ({_names(more)})"] if more else []
    parts += [f"lacks labels of the server's data ({_names(less)})"] if less else []
    return f"its data {' and '.join(parts)}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown or "none"
