"""Reads what a node replies, and checks it before anything is made of it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from flwr.app import Message, RecordDict

from models.core.tracebacks import line_of, traceback_of
from server.busy_nodes import has_died, worker_died
from server.errors import RunFailedError
from server.exchange import one_line
from server.traffic import OF_ARRAYS, WHY, Traffic, left_in
from strategies.wire.reply import ClientFailure, NodeReply


def read_reply(
    returned: Message | None,
    clients: list[int],
    traffic: Traffic,
    check: Callable[[RecordDict], NodeReply],
    waited: float,
    *,
    simulated: bool,
) -> NodeReply:
    """Return a node's replies; whatever befell the whole node befell each of its clients.

    Raises NodesFailedError where a `simulated` node's worker has died, which fails all later messages too.
    """
    if returned is None:
        why = f"its node did not answer within {waited:g} s (round-timeout + round-grace)"
        if len(clients) > 1:
            why += f", as one of its clients {', '.join(map(str, clients))} may hang"
        return NodeReply.of_failed_node(clients, why)
    if returned.has_error():
        reason = returned.error.reason or ""
        if simulated and has_died(returned):  # of a real node, the words are its own
            who = ", ".join(map(str, clients))
            raise worker_died(returned, f"while it worked for clients {who}")
        traffic.left[WHY] += len(reason)
        return NodeReply.of_failed_node(clients, one_line(reason), reason)
    try:
        left = left_in(returned.content)
        traffic.up += sum(left[kind] for kind in OF_ARRAYS)
        traffic.left += left
        reply = check(returned.content)
    except Exception as error:  # a node may send anything
        said = str(error) if type(error) is ValueError else line_of(error)
        why = f"the reply of its node cannot be used: {said}"
        return NodeReply.of_failed_node(clients, why, traceback_of(error))
    traffic.client_up += reply.client_bytes
    traffic.node_seconds = max(traffic.node_seconds, reply.seconds)
    return reply


def fail_without_examples(parts: Sequence[NodeReply], weighted_by: str) -> list[NodeReply]:
    """Return the replies, in which all clients have failed where none of them has examples.

    There is nothing to divide by then. Raises RunFailedError for clients that say no weight.
    """
    try:
        weights = [reply.weight(weighted_by) for part in parts for reply in part.replies]
    except ValueError as error:
        raise RunFailedError(f"the clients of this round cannot be weighted: {error}") from error
    if any(weights):
        return list(parts)
    why = f"it has no examples, as all that answered ({weighted_by} is 0)"
    return [
        replace(
            part,
            replies=[],
            failures=[*part.failures, *(ClientFailure(reply.client, why) for reply in part.replies)],
            total=None,
            statistics=None,
        )
        for part in parts
    ]
