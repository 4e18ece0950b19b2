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

from models.core.errors import UserError
from models.core.tracebacks import line_of, traceback_of
from server.busy_nodes import BusyNodes, has_died, worker_died
from server.errors import NodesFailedError, RunFailedError
from server.exchange import exchange, one_line
from server.node_registry import NodeRegistry
from server.requests import Request, Requests, Wave
from server.state_ledger import StateLedger
from strategies.wire.compression import decompress
from strategies.wire.exact_sum import ExactSum
from strategies.wire.records import num_bytes, num_value_bytes, to_arrays, to_record
from strategies.wire.reply import (
    ARRAYS,
    METRICS,
    ClientFailure,
    ClientReply,
    NodeReply,
    add_update,
    drop_partial_metrics,
    mean_metrics,
)
from strategies.wire.request import RoundInfo, pack_requests
from strategies.wire.saved_state import LostStateError, SavedState

Shapes = Mapping[str, tuple[int, ...]]
Answer = tuple[ClientReply, Request]


@dataclass(frozen=True)
class CohortResult:
    """What came back from the clients of one exchange."""

    replies: Sequence[Message] = ()
    """For the strategy, one for each of its messages, in client order: replies, and errors of clients that
    failed; or the mean of all replies, and the errors."""
    clients: Sequence[int] = ()
    """Clients that answered, in order; one that was asked several times counts as often."""
    failures: Sequence[ClientFailure] = ()
    """Clients that failed, in order."""
    statistics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Means of what no optimizer trains, weighted by examples; empty where the model has none."""
    partial_metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics in training that only some clients have, and no strategy sees: means, weighted by examples."""
    num_examples: int = 0
    """Examples of the clients that answered."""
    bytes_down: int = 0
    """Bytes of arrays sent to nodes."""
    bytes_up: int = 0
    """Bytes of arrays received from nodes."""
    client_bytes_down: int = 0
    """Bytes of arrays that the clients received, each for itself."""
    client_bytes_up: int = 0
    """Bytes of arrays that the clients sent, before their nodes added any up."""
    node_seconds: float = 0.0
    """Seconds that the busiest node computed."""
    seconds: float = 0.0
    """Seconds of the whole exchange."""


@dataclass
class _Traffic:
    """What an exchange moves, as it goes on."""

    down: int = 0
    up: int = 0
    client_down: int = 0
    client_up: int = 0
    node_seconds: float = 0.0
    failures: list[ClientFailure] = field(default_factory=list)
    """Of a strategy's own questions."""


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
        round_grace: float = 0.0,
        fixed: Mapping[str, Tensor] | None = None,
        requests: Requests | None = None,
    ) -> None:
        self.grid = grid
        self.node_registry = node_registry
        self.node_timeout = node_timeout
        self.round_grace = round_grace
        self.busy = BusyNodes(grid)
        self.fixed = ArrayRecord(dict(fixed)) if fixed else None
        self.requests = requests or Requests()
        self.sampling_deadline = math.inf
        self._round: tuple[RoundInfo, float, Mapping[str, Tensor] | None] | None = None
        self._aside = _Traffic()
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

    def begin_round(
        self, info: RoundInfo, timeout: float, statistics: Mapping[str, Tensor] | None = None
    ) -> None:
        """Let the strategy exchange messages of its own in this round."""
        self._round = info, timeout, statistics

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: clients that share a node answer together, so replies are only to be had together."""
        raise refused(self.requests.strategy, "push_messages")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse, as `push_messages` does."""
        raise refused(self.requests.strategy, "pull_messages")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Exchange messages in a strategy's own name, as the question for losses before it samples.

        Every client's reply is its own. What failed, and what was moved, counts with the next exchange.
        """
        if self._round is None:
            raise UserError(
                f"strategy {self.requests.strategy} asks clients before the first round has begun"
            )
        info, longest, statistics = self._round
        before, self._aside = self._aside, _Traffic()
        info = replace(info, weighted_by="")
        result = self.exchange(messages, info, min(timeout or longest, longest), statistics)
        self._aside = _Traffic(
            down=before.down + result.bytes_down,
            up=before.up + result.bytes_up,
            client_down=before.client_down + result.client_bytes_down,
            client_up=before.client_up + result.client_bytes_up,
            node_seconds=before.node_seconds + result.node_seconds,
            failures=[*before.failures, *result.failures],
        )
        return list(result.replies)

    def exchange(
        self,
        messages: Iterable[Message],
        info: RoundInfo,
        timeout: float,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> CohortResult:
        """Send the strategy's messages to clients with what polyfed says beside them, and wait for replies.

        Every node gets the `statistics` once a message, as it gets what is fixed. It has `timeout` seconds
        for its clients; the server waits `round_grace` longer for answers.

        Raises RunFailedError for a worker that died, and for a cohort without examples to train on.
        """
        started = time.perf_counter()
        waves = self.requests.read(messages)
        self.requests.warn(waves)
        traffic, self._aside = self._aside, _Traffic()
        if not waves and traffic == _Traffic():
            return CohortResult()
        info = replace(info, seconds_left=float(timeout))
        beside = ArrayRecord(dict(statistics)) if statistics else None
        outcomes = [self._exchange_wave(wave, info, timeout, traffic, beside) for wave in waves]
        answers = [answer for outcome in outcomes for answer in outcome.answers]
        failed = [each for outcome in outcomes for each in outcome.failed]
        errors = [error for failure, request in failed for error in _errors(failure, request)]
        summed = [each for each in outcomes if info.weighted_by and each.wave.training and each.answers]
        single = [each for each in outcomes if not (info.weighted_by and each.wave.training)]
        trained, evaluated = (
            [
                reply
                for each in single
                if each.wave.training is training
                for answer in each.answers
                for reply in _restored(*answer)
            ]
            for training in (True, False)
        )
        if summed:
            # Even where no node had two clients: the mean must not be rounded in another way then.
            trained = [_mean(summed, info.weighted_by)]
        partial = drop_partial_metrics([reply.content for reply in trained], "num-examples")
        replies = [*trained, *evaluated, *errors]
        if not summed:
            replies = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        return CohortResult(
            replies=replies,
            clients=sorted(reply.client for reply, request in answers for _ in request.messages),
            failures=[*traffic.failures, *sorted((each for each, _ in failed), key=lambda each: each.client)],
            num_examples=int(sum(reply.weight("num-examples") * len(to.messages) for reply, to in answers)),
            statistics=_mean_statistics([part for outcome in outcomes for part in outcome.parts]),
            partial_metrics=partial,
            bytes_down=traffic.down,
            bytes_up=traffic.up,
            client_bytes_down=traffic.client_down,
            client_bytes_up=traffic.client_up,
            node_seconds=traffic.node_seconds,
            seconds=time.perf_counter() - started,
        )

    def _exchange_wave(
        self, wave: Wave, info: RoundInfo, timeout: float, traffic: _Traffic, statistics: ArrayRecord | None
    ) -> "_Outcome":
        """Ask clients once, and return what came of it."""
        asked = wave.requests
        repeated = [client for client, request in asked.items() for _ in request.messages[1:]]
        info = replace(info, repeated=tuple(repeated))
        info = info if wave.training else replace(info, weighted_by="")  # every client's metrics are wanted
        parts = self._ask_nodes(wave, info, timeout, traffic, statistics)
        self._take_down(parts, info.server_round if wave.training else None)
        replies = sorted((reply for part in parts for reply in part.replies), key=lambda each: each.client)
        if wave.training:
            _check_examples(replies, info.weighted_by or "num-examples")
        return _Outcome(
            wave,
            parts,
            [(reply, asked[reply.client]) for reply in replies],
            [(failure, asked[failure.client]) for part in parts for failure in part.failures],
        )

    def _ask_nodes(
        self, wave: Wave, info: RoundInfo, timeout: float, traffic: _Traffic, statistics: ArrayRecord | None
    ) -> list[NodeReply]:
        """Send each node one message, and return what the nodes reply, or why they do not."""
        asked, wait = wave.requests, timeout + self.round_grace
        connected = list(self.grid.get_node_ids())
        free = self.busy.wait_for_free(connected, wait)
        assigned = self.node_registry.assign(asked, free)
        packed = {
            node: self._pack(node, wave, clients, info, traffic, statistics)
            for node, clients in assigned.items()
        }
        # Not by node: the SuperLink answers in its own name for a node that has gone.
        returned = {
            reply.metadata.reply_to_message_id: reply for reply in exchange(self.grid, packed.values(), wait)
        }
        for node, message in packed.items():
            if message.metadata.message_id not in returned:
                self.busy.add(node, message.metadata.message_id, info.server_round)
        wanted = _shapes(to_arrays(statistics)) if wave.training and statistics else {}
        parts = [
            _unpack(returned.get(packed[node].metadata.message_id), clients, traffic, wanted, wait).on_node(
                node
            )
            for node, clients in assigned.items()
        ]
        left = sorted(asked.keys() - {client for clients in assigned.values() for client in clients})
        host_of = self.node_registry.assign(left, connected)
        for node, clients in host_of.items():
            why = f"its node still works on round {self.busy.round_of(node)}"
            parts.append(NodeReply.of_failed_node(clients, why).on_node(node))
        hosted = {client for clients in host_of.values() for client in clients}
        away = [client for client in left if client not in hosted]
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
        wave: Wave,
        clients: Sequence[int],
        info: RoundInfo,
        traffic: _Traffic,
        statistics: ArrayRecord | None,
    ) -> Message:
        contents = [(client, wave.requests[client].content) for client in clients]
        states = self._states_of(clients)
        content = pack_requests(contents, info, self.fixed, statistics, states)
        traffic.down += num_bytes(content)
        messages = [message for client in clients for message in wave.requests[client].messages]
        traffic.client_down += _received_by_clients(messages, self.fixed, statistics)
        return Message(content, node, wave.message_type)


@dataclass(frozen=True)
class _Outcome:
    """What came of a wave."""

    wave: Wave
    parts: Sequence[NodeReply]
    answers: Sequence[Answer]
    """In client order."""
    failed: Sequence[tuple[ClientFailure, Request]]


def refused(strategy: str, method: str) -> UserError:
    """Return the error for a method of the Grid that cannot do here what it does in Flower."""
    return UserError(
        f"strategy {strategy} calls grid.{method}, and clients that share a node answer together: "
        "call grid.send_and_receive, or return the messages"
    )


def _received_by_clients(messages: Sequence[Message], *beside: ArrayRecord | None) -> int:
    """Return the bytes that clients would receive in messages of their own, each with what goes beside."""
    sizes: dict[int, int] = {}  # of records that clients share, once
    total = sum(num_value_bytes(record) for record in beside if record is not None) * len(messages)
    for message in messages:
        for record in message.content.array_records.values():
            if id(record) not in sizes:
                sizes[id(record)] = num_value_bytes(record)
            total += sizes[id(record)]
    return total


def _unpack(
    returned: Message | None, clients: list[int], traffic: _Traffic, statistics: Shapes, waited: float
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
    try:
        weights = [reply.weight(weighted_by) for reply in replies]
    except ValueError as error:
        raise RunFailedError(f"the clients of this round cannot be weighted: {error}") from error
    if replies and not any(weights):
        raise RunFailedError(f"the clients of this round have no examples ({weighted_by} is 0)")


def _errors(failure: ClientFailure, request: Request) -> list[Message]:
    """Return an error reply to each message that asked a client which failed."""
    error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"client {failure.client}: {failure.error}")
    return [Message(error, reply_to=message) for message in request.messages]


def _mean(outcomes: Sequence[_Outcome], weighted_by: str) -> Message:
    """Return the weighted mean of all clients as if it were one client's reply."""
    total = ExactSum()
    for outcome in outcomes:
        for part in outcome.parts:
            if part.total is not None:
                total.merge(part.total)
                continue
            for reply in part.replies:  # a node with few clients sends their arrays as they are
                for message in _restored(reply, outcome.wave.requests[reply.client]):
                    add_update(total, message.content, weighted_by)
    answers = sorted(
        (answer for outcome in outcomes for answer in outcome.answers), key=lambda answer: answer[0].client
    )
    metrics = mean_metrics([reply.content for reply, to in answers for _ in to.messages], weighted_by)
    content = RecordDict({ARRAYS: to_record(total.mean()), METRICS: metrics})
    return Message(content, reply_to=answers[0][1].messages[0])


def _restored(reply: ClientReply, request: Request) -> list[Message]:
    """Return a client's reply without compression, to each message that it answers."""
    sent = next(iter(request.content.array_records.values()), None)
    content = reply.content if sent is None else decompress(reply.content, sent)
    # Strategies may put other records into a reply: each has its own.
    contents = [content, *(RecordDict(dict(content)) for _ in request.messages[1:])]
    return [Message(each, reply_to=message) for each, message in zip(contents, request.messages, strict=True)]
