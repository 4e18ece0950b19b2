"""Reads what a node replies, and checks it before anything is made of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Message
from numpy.typing import NDArray

from models.core.tracebacks import line_of, traceback_of
from server.busy_nodes import has_died, worker_died
from server.errors import RunFailedError
from server.exchange import one_line
from server.traffic import Traffic
from strategies.wire.records import num_bytes
from strategies.wire.reply import ClientReply, NodeReply

Shapes = Mapping[str, tuple[int, ...]]


def read_reply(
    returned: Message | None, clients: list[int], traffic: Traffic, statistics: Shapes, waited: float
) -> NodeReply:
    """Return a node's replies; whatever befell the whole node befell each of its clients."""
    if returned is None:
        why = f"its node did not answer within {waited:g} s (round-timeout + round-grace)"
        if len(clients) > 1:
            why += f", as one of its clients {', '.join(map(str, clients))} may hang"
        return NodeReply.of_failed_node(clients, why)
    if returned.has_error():
        reason = returned.error.reason or ""
        if has_died(returned):
            who = ", ".join(map(str, clients))
            raise worker_died(returned, f"while it worked for clients {who}")
        return NodeReply.of_failed_node(clients, one_line(reason), reason)
    traffic.up += num_bytes(returned.content)
    try:
        reply = NodeReply.unpack(returned.content)
        _check_answered(reply, clients)
        _check_statistics(reply, statistics)
    except Exception as error:  # a node may send anything
        why = f"the reply of its node cannot be read: {line_of(error)}"
        return NodeReply.of_failed_node(clients, why, traceback_of(error))
    traffic.client_up += reply.client_bytes
    traffic.node_seconds = max(traffic.node_seconds, reply.seconds)
    return reply


def _check_answered(reply: NodeReply, clients: Sequence[int]) -> None:
    """Raise ValueError where a node does not answer for each of its clients, and for no other, once."""
    answered = sorted([each.client for each in reply.replies] + [each.client for each in reply.failures])
    if answered != sorted(clients):
        raise ValueError(f"it answers for clients {answered}, and was asked for {sorted(clients)}")
    if more := reply.states.keys() - {each.client for each in reply.replies}:
        raise ValueError(f"it has states of clients {sorted(more)}, which have not replied")


def _check_statistics(reply: NodeReply, wanted: Shapes) -> None:
    """Raise ValueError for statistics that are not those of the model."""
    found = reply.statistics.shapes if reply.statistics else {}
    if reply.replies and found != wanted:
        raise ValueError(f"it sends statistics {sorted(found)}, and the model has {sorted(wanted)}")


def shapes_of(arrays: Mapping[str, NDArray[Any]]) -> Shapes:
    """Return the shape of each array."""
    return {name: array.shape for name, array in arrays.items()}


def check_examples(replies: Sequence[ClientReply], weighted_by: str) -> None:
    """Raise RunFailedError where there is nothing to divide by."""
    try:
        weights = [reply.weight(weighted_by) for reply in replies]
    except ValueError as error:
        raise RunFailedError(f"the clients of this round cannot be weighted: {error}") from error
    if replies and not any(weights):
        raise RunFailedError(f"the clients of this round have no examples ({weighted_by} is 0)")
