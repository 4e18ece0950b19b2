"""A Grid on which a strategy sees clients, while messages travel between nodes."""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from torch import Tensor

from models.core.errors import UserError
from server.busy_nodes import BusyNodes
from server.cohort_result import CohortResult, Outcome
from server.exchange import LONGEST_PAUSE, exchange
from server.metric_checks import Expected
from server.node_registry import NodeRegistry
from server.node_replies import fail_without_examples, read_reply
from server.reply_checks import Asked, agreeing, checked_reply
from server.requests import Requests, Wave
from server.sampling import Sampling
from server.state_ledger import StateLedger
from server.tally import NodeTally, Tally
from server.traffic import DESCRIPTIONS, Traffic, received_by_clients
from strategies.wire.arrays import hold_tensors
from strategies.wire.records import forms_of, num_bytes
from strategies.wire.reply import ClientReply, NodeReply
from strategies.wire.reply_metrics import NUM_EXAMPLES
from strategies.wire.request import RoundInfo, pack_requests
from strategies.wire.saved_state import LostStateError, SavedState

OUT_OF_TIME = "what clients were asked before in the round took all its time (round-timeout)"
"""Why a client fails that is asked again, and was not sent it."""
LOST = "its node has gone, or was started anew, before it answered"
NOT_NEEDED = "it was not waited for, as enough others had answered (oversample)"


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
        sampled: int = 0,
        min_clients: int = 1,
        fixed: Mapping[str, Tensor] | None = None,
        requests: Requests | None = None,
        expected: Expected | None = None,
        weight_types: Mapping[str, np.dtype[Any]] | None = None,
        asynchronous: bool = False,
    ) -> None:
        self.grid = grid
        self.node_registry = node_registry
        self.round_grace = round_grace
        self.sampling = Sampling(node_registry, node_timeout, sampled, min_clients)
        self.busy = BusyNodes(grid, simulated=node_registry.interchangeable, has_gone=self.has_gone)
        self.fixed = hold_tensors(fixed) if fixed else None
        self.requests = requests or Requests()
        self.expected = expected or Expected()
        self.weight_types = weight_types
        """Types of the weights, where the weighted mean is to be the new ones as it is; else None."""
        self.asynchronous = asynchronous
        """Whether those who answer are not those whose updates are averaged next."""
        self.shown: Collection[int] | None = None
        """Clients that a strategy is shown; None is those whose nodes are connected."""
        self._round: tuple[RoundInfo, float, Mapping[str, Tensor] | None] | None = None
        self._aside = Traffic()
        self._seconds_aside = 0.0
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

    def get_node_ids(self) -> tuple[int, ...]:
        """Return the clients, in order, that the strategy may sample from."""
        clients = self.connected()
        return clients if self.shown is None else tuple(sorted(self.shown))

    def connected(self) -> tuple[int, ...]:
        """Return the clients, in order, whose nodes are there, or all of them: see `Sampling`."""
        self.node_registry.update(self.grid)
        return self.sampling.clients(self.requests.strategy)

    def present(self) -> tuple[int, ...]:
        """Return the clients, in order, whose nodes are there, as soon as these are min-clients.

        Raises NodesFailedError where they are not within node-timeout.
        """
        self.expect_sampling()
        while True:
            self.connected()
            there = self.node_registry.hosts()
            if len(there) >= self.sampling.min_clients:
                return there
            time.sleep(LONGEST_PAUSE)

    def expect_sampling(self) -> None:
        """Give the strategy node-timeout from now to find enough clients; it may wait for ever by itself."""
        self.sampling.begin()

    def begin_round(
        self, info: RoundInfo, timeout: float, statistics: Mapping[str, Tensor] | None = None
    ) -> None:
        """Let the strategy exchange messages of its own in this round, within the round's time."""
        self._round, self._seconds_aside = (info, timeout, statistics), 0.0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: clients that share a node answer together, so replies are only to be had together."""
        raise refused(self.requests.strategy, "push_messages")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse, as `push_messages` does."""
        raise refused(self.requests.strategy, "pull_messages")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Exchange messages in a strategy's own name, as the question for losses before it samples.

        Every client's reply is its own. What failed, what was moved, and the time that it took, counts with
        the next exchange.
        """
        if self._round is None:
            raise UserError(
                f"strategy {self.requests.strategy} asks clients before the first round has begun"
            )
        info, longest, statistics = self._round
        before, self._aside = self._aside, Traffic()
        info = replace(info, weighted_by="")
        own = timeout + self._seconds_aside if timeout else longest
        result = self.exchange(messages, info, min(own, longest), statistics)
        self._seconds_aside += result.seconds
        self.expect_sampling()  # it may have asked them in order to sample
        self._aside = Traffic(
            down=before.down + result.bytes_down,
            up=before.up + result.bytes_up,
            client_down=before.client_down + result.client_bytes_down,
            client_up=before.client_up + result.client_bytes_up,
            node_seconds=before.node_seconds + result.node_seconds,
            left=before.left + Counter(result.left),
            failures=[*before.failures, *result.failures],
        )
        return list(result.replies)

    def exchange(
        self,
        messages: Iterable[Message],
        info: RoundInfo,
        timeout: float,
        statistics: Mapping[str, Tensor] | None = None,
        enough: float = math.inf,
    ) -> CohortResult:
        """Send the strategy's messages to clients with what polyfed says beside them, and wait for replies.

        Every node gets the `statistics` once a message, as it gets what is fixed. All that clients are asked
        in a round has `timeout` seconds together; the server waits `round_grace` longer for answers, and no
        longer than until `enough` clients have answered.

        Where no client that answered has examples to train on, all of them have failed. Raises RunFailedError
        for a worker that died.
        """
        started = time.perf_counter()
        waves = self.requests.read(messages)
        self.requests.warn(waves)
        traffic = self.traffic_aside()
        if not waves and traffic == Traffic():
            return CohortResult()
        self.take_down_descriptions(traffic)
        beside = hold_tensors(statistics) if statistics else None
        outcomes: list[Outcome] = []
        for wave in waves:
            spent = self._seconds_aside + (time.perf_counter() - started if outcomes else 0.0)
            left = replace(info, seconds_left=float(timeout - spent))
            outcomes.append(self._exchange_wave(wave, left, left.seconds_left, traffic, beside, enough))
        taken = time.perf_counter() - started
        return CohortResult.of(outcomes, info.weighted_by, traffic, taken, self.weight_types)

    def traffic_aside(self) -> Traffic:
        """Return, once, what was moved and what failed as the strategy exchanged messages of its own."""
        traffic, self._aside = self._aside, Traffic()
        return traffic

    def take_down_descriptions(self, traffic: Traffic) -> None:
        """Count, once, what nodes have said of themselves."""
        if described := self.node_registry.take_described():
            traffic.left[DESCRIPTIONS] += described

    def _exchange_wave(
        self,
        wave: Wave,
        info: RoundInfo,
        timeout: float,
        traffic: Traffic,
        statistics: ArrayRecord | None,
        enough: float,
    ) -> Outcome:
        """Ask clients once, and return what came of it."""
        info = replace(info, repeated=wave.repeated)
        info = info if wave.training else replace(info, weighted_by="")  # every client's metrics are wanted
        tally, sums = Tally(), None
        if timeout > 0:
            parts = self._ask_nodes(wave, info, timeout, traffic, statistics, tally, enough)
        else:
            parts = [NodeReply.of_failed_node(list(wave.requests), OUT_OF_TIME)]
        if wave.training:
            parts, sums = tally.settle(parts) if info.weighted_by else (agreeing(parts), None)
        self.take_down(parts, info.server_round if wave.training else None)
        if wave.training and not self.asynchronous:
            parts = fail_without_examples(parts, info.weighted_by or NUM_EXAMPLES)
        return Outcome.of(wave, parts, sums)

    def _ask_nodes(
        self,
        wave: Wave,
        info: RoundInfo,
        timeout: float,
        traffic: Traffic,
        statistics: ArrayRecord | None,
        tally: Tally,
        enough: float,
    ) -> list[NodeReply]:
        """Send each node one message, and return what the nodes reply, or why they do not.

        Where a weighted mean is enough, clients' arrays are in the tally, and no more in what is returned.
        """
        asked, wait = wave.requests, timeout + self.round_grace
        self.node_registry.update(self.grid)
        connected = list(self.node_registry.accepted)
        free = self.busy.wait_for_free(connected, wait)
        assigned = self.node_registry.assign(asked, free)
        packed = {
            node: self.pack(node, wave, clients, info, traffic, statistics)
            for node, clients in assigned.items()
        }
        starts = {node: self.node_registry.start_of(node) for node in packed}
        wanted = forms_of(statistics) if wave.training and statistics else {}

        def read(node: int, returned: Message | None) -> NodeReply:
            given = info.weighted_by, wanted, self.requests.weights, self.expected
            node_asked = Asked(wave, assigned[node], *given)
            if not info.weighted_by:
                return self.read(node, returned, node_asked, traffic, wait)
            own = NodeTally(info.weighted_by, lambda client: len(asked[client].messages))
            return tally.take(self.read(node, returned, node_asked, traffic, wait, own.take), own)

        arrived: dict[int, NodeReply] = {}
        num_answered = 0
        answers = self.answers(packed, starts, info.server_round, wait, lambda: num_answered >= enough)
        for node, returned in answers:
            if isinstance(returned, str):
                arrived[node] = NodeReply.of_failed_node(assigned[node], returned).on_node(node)
            else:
                arrived[node] = read(node, returned)
                num_answered += len(arrived[node].replies)
            del returned  # it may hold as much as a model, and the next one takes time to come
        sent_to = {client for clients in assigned.values() for client in clients}
        parts = [arrived[node] for node in assigned]
        return parts + self._left_out(sorted(asked.keys() - sent_to), connected)

    def answers(
        self,
        messages: Mapping[int, Message],
        starts: Mapping[int, str],
        server_round: int,
        wait: float,
        enough: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Message | str | None]]:
        """Send nodes their messages; yield each node with its answer, as it comes.

        In the place of an answer there is LOST for a node that has gone, or was started anew (see `starts`),
        None for one that has not answered within `wait` seconds, and NOT_NEEDED for one that is not waited
        for, as there are `enough` others. Whoever has not answered is busy with the round from then on.
        """
        silent, node_of = dict.fromkeys(messages), dict[str, int]()

        def gone() -> set[int]:
            return {node for node in silent if self.has_gone(node, starts[node])}

        for returned in exchange(self.grid, messages.values(), wait, gone):
            # Not by node: the SuperLink answers in its own name for a node that has gone. The messages have
            # their ids once they are sent.
            node_of = node_of or {sent.metadata.message_id: node for node, sent in messages.items()}
            node = node_of[returned.metadata.reply_to_message_id]
            del silent[node]
            is_lost = returned.has_error() and returned.error.code == ErrorCode.NODE_UNAVAILABLE
            yield node, LOST if is_lost else returned
            del returned
            if enough():
                break
        lost = gone()
        for node in silent:
            if node not in lost:
                self.busy.add(node, messages[node].metadata.message_id, server_round, starts[node])
            yield node, LOST if node in lost else NOT_NEEDED if enough() else None

    def read(
        self,
        node: int,
        returned: Message | None,
        asked: Asked,
        traffic: Traffic,
        waited: float,
        take: Callable[[ClientReply], ClientReply] = lambda reply: reply,
    ) -> NodeReply:
        """Return what a node replies to what it was asked, checked; None is silence for so many seconds."""

        def check(content: RecordDict) -> NodeReply:
            return checked_reply(content, asked, take)

        return read_reply(
            returned, list(asked.clients), traffic, check, waited, simulated=self.busy.simulated
        ).on_node(node)

    def _left_out(self, clients: Sequence[int], connected: Iterable[int]) -> list[NodeReply]:
        """Return the failures of clients that nobody could be asked for: their nodes are busy, or away."""
        host_of = self.node_registry.assign(clients, connected)
        busy = [
            NodeReply.of_failed_node(
                hosted, f"its node still works on round {self.busy.round_of(node)}"
            ).on_node(node)
            for node, hosted in host_of.items()
        ]
        hosted = {client for clients in host_of.values() for client in clients}
        away = [client for client in clients if client not in hosted]
        return busy + [NodeReply.of_failed_node([each], self.node_registry.why_away(each)) for each in away]

    def has_gone(self, node: int, start: str) -> bool:
        """Return whether a node has lost what it was sent since a start; newcomers are asked meanwhile."""
        self.node_registry.update_if_due(self.grid)
        return self.node_registry.has_gone(node, start)

    def take_down(self, parts: Sequence[NodeReply], server_round: int | None) -> None:
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

    def pack(
        self,
        node: int,
        wave: Wave,
        clients: Sequence[int],
        info: RoundInfo,
        traffic: Traffic,
        statistics: ArrayRecord | None = None,
    ) -> Message:
        """Return the message to a node, for these of its clients."""
        contents = [(client, wave.requests[client].content) for client in clients]
        states = self._states_of(clients)
        vocabulary = self.node_registry.vocabulary_of_requests
        content = pack_requests(contents, info, self.fixed, statistics, states, vocabulary)
        traffic.down += num_bytes(content)
        messages = [message for client in clients for message in wave.requests[client].messages]
        traffic.client_down += received_by_clients(messages, self.fixed, statistics)
        return Message(content, node, wave.message_type)


def refused(strategy: str, method: str) -> UserError:
    """Return the error for a method of the Grid that cannot do here what it does in Flower."""
    return UserError(
        f"strategy {strategy} calls grid.{method}, and clients that share a node answer together: "
        "call grid.send_and_receive, or return the messages"
    )
