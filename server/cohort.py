"""A Grid on which a strategy sees clients, while messages travel between nodes."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from numpy.typing import NDArray
from torch import Tensor

from models.core.tracebacks import line_of, traceback_of
from server.errors import NodesFailedError, RunFailedError
from server.exchange import exchange, one_line
from server.node_registry import NodeRegistry
from server.state_ledger import StateLedger
from strategies.wire.compression import decompress
from strategies.wire.exact_sum import ExactSum
from strategies.wire.records import num_bytes, to_arrays, to_record
from strategies.wire.reply import (
    ARRAYS,
    METRICS,
    ClientFailure,
    ClientReply,
    NodeReply,
    add_update,
    mean_metrics,
)
from strategies.wire.request import RoundInfo, pack_requests
from strategies.wire.saved_state import LostStateError, SavedState

# How Ray names an actor that has gone; Flower puts it back into its pool, and all later messages to it fail.
DEAD_WORKER = ("ActorDiedError", "ActorUnavailableError", "OutOfMemoryError", "RayActorError")

Shapes = Mapping[str, tuple[int, ...]]

REFUSAL = "the round loop exchanges messages: clients that share a node answer together"


@dataclass(frozen=True)
class CohortResult:
    """What came back from the clients of one exchange."""

    replies: Sequence[Message] = ()
    """For the strategy: replies in client order, and an error reply for each client that failed."""
    clients: Sequence[int] = ()
    """Clients that answered, in order."""
    failures: Sequence[ClientFailure] = ()
    """Clients that failed, in order."""
    statistics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Means of what no optimizer trains, weighted by examples; empty where the model has none."""
    num_examples: int = 0
    """Examples of the clients that answered."""
    bytes_down: int = 0
    """Bytes of arrays sent to nodes."""
    bytes_up: int = 0
    """Bytes of arrays received from nodes."""
    node_seconds: float = 0.0
    """Seconds that the busiest node computed."""
    seconds: float = 0.0
    """Seconds of the whole exchange."""


@dataclass
class _Traffic:
    """What an exchange moves, as it goes on."""

    down: int = 0
    up: int = 0
    node_seconds: float = 0.0


class CohortGrid(Grid):
    """Packs the messages of clients that live on one node into one, over any other Grid.

    Node ids are client numbers here. Where nodes add up their clients' arrays, a strategy that needs no more
    than the weighted mean gets it as a single reply; otherwise it gets every client's. Replies come in client
    order. A client that failed is an error reply for it alone. Every node gets the weights in `fixed` beside
    the strategy's, once a message.
    """

    def __init__(
        self,
        grid: Grid,
        node_registry: NodeRegistry,
        *,
        node_timeout: float = 300.0,
        fixed: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.grid = grid
        self.node_registry = node_registry
        self.node_timeout = node_timeout
        self.fixed = ArrayRecord(dict(fixed)) if fixed else None
        self.sampling_deadline = math.inf
        self.states: StateLedger | None = StateLedger()
        """What clients remember, by what they have told of it; None where nobody has taken that down."""

    def set_run(self, run: Run) -> None:
        """Set the run of the grid underneath."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the grid underneath."""
        return self.grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to a client."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the clients, in order, whose nodes are connected."""
        node_ids = list(self.grid.get_node_ids())
        self.node_registry.refresh(self.grid, node_ids, self.node_timeout)
        clients = self.node_registry.hosts(node_ids)
        if time.monotonic() > self.sampling_deadline:
            away = sorted(set(range(self.node_registry.num_clients)) - set(clients))
            raise NodesFailedError(
                f"too few clients are connected to sample from: clients {away} have been away for "
                f"{self.node_timeout:g} s (node-timeout)"
            )
        return clients

    def expect_sampling(self) -> None:
        """Give the strategy node-timeout from now to find enough clients; it may wait for ever by itself."""
        self.sampling_deadline = time.monotonic() + self.node_timeout

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: replies are packed by node, so they are only to be had together."""
        raise NotImplementedError(REFUSAL)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse, as `push_messages` does."""
        raise NotImplementedError(REFUSAL)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Refuse, as `push_messages` does."""
        raise NotImplementedError(REFUSAL)

    def exchange(
        self,
        messages: Iterable[Message],
        info: RoundInfo,
        timeout: float,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> CohortResult:
        """Send the strategy's messages to clients with what polyfed says beside them, and wait for replies.

        Every node gets the `statistics` once a message, as it gets what is fixed.

        Raises RunFailedError for a worker that died, and for a cohort without examples to train on.
        """
        started = time.perf_counter()
        asked = {message.metadata.dst_node_id: message for message in messages}
        if not asked:
            return CohortResult()
        training = next(iter(asked.values())).metadata.message_type.startswith("train")
        info = info if training else replace(info, weighted_by="")  # every client's metrics are wanted
        traffic, beside = _Traffic(), ArrayRecord(dict(statistics)) if statistics else None
        parts = self._ask_nodes(asked, info, timeout, traffic, beside)
        self._take_down(parts, info.server_round if training else None)
        replies = sorted((reply for part in parts for reply in part.replies), key=lambda each: each.client)
        failures = sorted((each for part in parts for each in part.failures), key=lambda each: each.client)
        if training:
            _check_examples(replies, info.weighted_by or "num-examples")
        if info.weighted_by and replies:
            # Even where no node had two clients: the mean must not be rounded in another way then.
            answered = [_mean(parts, replies, asked, info.weighted_by)]
        else:
            answered = [_restored(reply, asked) for reply in replies]
        return CohortResult(
            replies=_with_errors(answered, failures, asked, in_order=not info.weighted_by),
            clients=[reply.client for reply in replies],
            failures=failures,
            statistics=_mean_statistics(parts),
            num_examples=int(sum(reply.weight("num-examples") for reply in replies)),
            bytes_down=traffic.down,
            bytes_up=traffic.up,
            node_seconds=traffic.node_seconds,
            seconds=time.perf_counter() - started,
        )

    def _ask_nodes(
        self,
        asked: Mapping[int, Message],
        info: RoundInfo,
        timeout: float,
        traffic: _Traffic,
        statistics: ArrayRecord | None,
    ) -> list[NodeReply]:
        """Send each node one message, and return what the nodes reply, or why they do not."""
        assigned = self.node_registry.assign(asked, list(self.grid.get_node_ids()))
        packed = {
            node: self._pack(node, [asked[client] for client in clients], info, traffic, statistics)
            for node, clients in assigned.items()
        }
        # Not by node: the SuperLink answers in its own name for a node that has gone.
        returned = {
            reply.metadata.reply_to_message_id: reply
            for reply in exchange(self.grid, packed.values(), timeout)
        }
        training = bool(packed) and next(iter(packed.values())).metadata.message_type.startswith("train")
        wanted = _shapes(to_arrays(statistics)) if training and statistics else {}
        parts = [
            _unpack(returned.get(packed[node].metadata.message_id), clients, traffic, wanted).on_node(node)
            for node, clients in assigned.items()
        ]
        away = sorted(asked.keys() - {client for clients in assigned.values() for client in clients})
        return [*parts, NodeReply.of_failed_node(away, "its node has gone")]

    def _take_down(self, parts: Sequence[NodeReply], server_round: int | None) -> None:
        """Note what clients have saved in this round of training, and who has lost what they had."""
        if self.states is None:
            return
        for part in parts:
            if server_round is not None:
                self.states.add(
                    {client: SavedState(server_round, each.sha256) for client, each in part.states.items()}
                )
            for failure in part.failures:
                if failure.error.startswith(LostStateError.__name__):
                    self.states.lose(failure.client)

    def _states_of(self, clients: Iterable[int]) -> dict[int, SavedState] | None:
        """Return what those of these clients that remember anything are to go on from."""
        if self.states is None:
            return None
        held = {client: self.states.get(client) for client in clients}
        return {client: state for client, state in held.items() if state is not None}

    def _pack(
        self,
        node: int,
        messages: list[Message],
        info: RoundInfo,
        traffic: _Traffic,
        statistics: ArrayRecord | None,
    ) -> Message:
        contents = [(message.metadata.dst_node_id, message.content) for message in messages]
        states = self._states_of([client for client, _ in contents])
        content = pack_requests(contents, info, self.fixed, statistics, states)
        traffic.down += num_bytes(content)
        return Message(content, node, messages[0].metadata.message_type)


def _unpack(returned: Message | None, clients: list[int], traffic: _Traffic, statistics: Shapes) -> NodeReply:
    """Return a node's replies; whatever befell the whole node befell each of its clients."""
    if returned is None:
        return NodeReply.of_failed_node(clients, "its node did not answer in time")
    if returned.has_error():
        reason = returned.error.reason or ""
        if any(word in reason for word in DEAD_WORKER):
            who = ", ".join(map(str, clients))
            how = "ran out of memory" if "OutOfMemoryError" in reason else "died or was killed"
            error = NodesFailedError(f"a worker {how} while it worked for clients {who}: {one_line(reason)}")
            error.add_note(f"node {returned.metadata.src_node_id} said:\n{reason}")  # for errors.log
            raise error
        return NodeReply.of_failed_node(clients, one_line(reason), reason)
    traffic.up += num_bytes(returned.content)
    try:
        reply = NodeReply.unpack(returned.content)
        _check_answered(reply, clients)
        _check_statistics(reply, statistics)
    except Exception as error:  # a node may send anything
        why = f"the reply of its node cannot be read: {line_of(error)}"
        return NodeReply.of_failed_node(clients, why, traceback_of(error))
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


def _mean_statistics(parts: Sequence[NodeReply]) -> dict[str, NDArray[np.float64]]:
    """Return the mean of the statistics over all clients' examples; nothing where there are no examples."""
    total = ExactSum()
    for part in parts:
        if part.statistics is not None:
            total.merge(part.statistics)
    return total.mean() if total.weight else {}


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> Shapes:
    return {name: array.shape for name, array in arrays.items()}


def _check_examples(replies: Sequence[ClientReply], weighted_by: str) -> None:
    """Raise RunFailedError where there is nothing to divide by."""
    if replies and not any(reply.weight(weighted_by) for reply in replies):
        raise RunFailedError(f"the clients of this round have no examples ({weighted_by} is 0)")


def _with_errors(
    answered: list[Message], failures: Sequence[ClientFailure], asked: Mapping[int, Message], in_order: bool
) -> list[Message]:
    """Add an error reply for each client that failed, in client order or after the mean."""
    errors = [
        Message(
            Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"client {each.client}: {each.error}"),
            reply_to=asked[each.client],
        )
        for each in failures
    ]
    every = [*answered, *errors]
    return sorted(every, key=lambda reply: reply.metadata.src_node_id) if in_order else every


def _mean(
    parts: Sequence[NodeReply], replies: Sequence[ClientReply], asked: Mapping[int, Message], weighted_by: str
) -> Message:
    """Return the weighted mean of all clients as if it were one client's reply."""
    total = ExactSum()
    for part in parts:
        if part.total is not None:
            total.merge(part.total)
        else:  # a node with few clients sends their arrays as they are
            for reply in part.replies:
                add_update(total, _restored(reply, asked).content, weighted_by)
    metrics = mean_metrics([reply.content for reply in replies], weighted_by)
    content = RecordDict({ARRAYS: to_record(total.mean()), METRICS: metrics})
    return Message(content, reply_to=asked[replies[0].client])


def _restored(reply: ClientReply, asked: Mapping[int, Message]) -> Message:
    """Return a client's reply without compression."""
    request = asked[reply.client]
    sent = next(iter(request.content.array_records.values()), None)
    content = reply.content if sent is None else decompress(reply.content, sent)
    return Message(content, reply_to=request)
