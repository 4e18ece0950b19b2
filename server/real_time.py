"""When the clients of real nodes begin and arrive: requests under way, over the rounds, and their answers.

A node works on one request at a time, for one of its clients, and answers when that client is done. It is not
asked for another one before it has answered, has gone, or has taken too long.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from flwr.app import Message
from flwr.common.constant import ErrorCode

from server.cohort import LOST, CohortGrid
from server.cohort_result import CohortResult, Outcome
from server.exchange import NOT_SENT, pause_after, pulled, unreadable
from server.node_replies import fail_without_examples
from server.reply_checks import Asked, agreeing
from server.requests import Wave
from server.sightings import PAUSE
from server.turns import Clock, InFlight, Time
from strategies.wire.reply import NodeReply
from strategies.wire.reply_metrics import NUM_EXAMPLES
from strategies.wire.request import RoundInfo


@dataclass(frozen=True)
class UnderWay:
    """A request that a node works on."""

    place: InFlight
    """The client, and the round that it began in."""
    asked: Asked
    """What the node was asked, with the weights that it was sent."""
    message: Message
    node: int
    start: str
    """Which start of the node it was sent to."""
    sent: float
    """When, on the monotonic clock."""
    patience: float
    """Seconds that its answer is waited for."""


Arrival = tuple[UnderWay, NodeReply]
"""What came of a request."""


class RealTime(Time):
    """Asks clients as their nodes get free, and hears who has answered."""

    def __init__(self, grid: CohortGrid, clock: Clock, weighted_by: str) -> None:
        """Take where the clock stands, and the metric by which updates are weighted."""
        self.grid, self.clock, self.weighted_by = grid, clock, weighted_by
        self.under_way: dict[str, UnderWay] = {}
        """By the message's id, in the order in which they were sent."""
        self._hosts: dict[int, int] = {}
        """Client -> its node, of those whose nodes are free."""
        self._looked = 0.0

    def open_round(self, wave: Wave, info: RoundInfo, timeout: float) -> None:
        """Have the clients that begin from now on asked this, each with so many seconds from then on."""
        self._wave, self._info, self._timeout = wave, replace(info, seconds_left=float(timeout)), timeout
        self._arrivals: list[Arrival] = []
        self._traffic = self.grid.traffic_aside()
        self.grid.take_down_descriptions(self._traffic)
        self._look()

    def close_round(self, seconds: float) -> tuple[list[tuple[InFlight, Message]], CohortResult]:
        """Return who has arrived in the round with which update, in order, and what else is to be said of it.

        Clients whose updates do not fit those of the others have failed, and all where none has examples.
        """
        parts = agreeing([part for _, part in self._arrivals])
        parts = fail_without_examples(parts, self.weighted_by or NUM_EXAMPLES)
        outcomes = [
            Outcome.of(each.asked.wave, [part]) for (each, _), part in zip(self._arrivals, parts, strict=True)
        ]
        # What a node has done since earlier rounds is no part of this one's seconds.
        traffic = replace(self._traffic, node_seconds=min(self._traffic.node_seconds, seconds))
        updates = [
            (each.place, update)
            for (each, _), outcome in zip(self._arrivals, outcomes, strict=True)
            for update in outcome.restored(training=True)
        ]
        return updates, CohortResult.of(outcomes, "", traffic, seconds)

    def is_free(self, client: int) -> bool:
        """Return whether a client's node is there and works on nothing."""
        return client in self._hosts and self._hosts[client] not in self.grid.busy.reserved

    def begin(self, server_round: int, client: int) -> None:
        """Ask a client to train."""
        node = self._hosts[client]
        info = replace(self._info, repeated=(client,) * (len(self._wave.requests[client].messages) - 1))
        message = self.grid.pack(node, self._wave, [client], info, self._traffic)
        patience = self._timeout + self.grid.round_grace
        asked = Asked(self._wave, [client], names=self.grid.requests.weights, expected=self.grid.expected)
        start = self.grid.node_registry.start_of(node)
        sent, place = time.monotonic(), InFlight(client, server_round)
        each = UnderWay(place, asked, message, node, start, sent, patience)
        if not any(self.grid.grid.push_messages([message])):
            self._note(each, NodeReply.of_failed_node([client], NOT_SENT).on_node(node))
            return
        self.under_way[message.metadata.message_id] = each
        self.clock.in_flight.append(place)
        self.grid.busy.reserved[node] = server_round

    def wait(self, waiting: Callable[[], Collection[int]]) -> InFlight | bool:
        """Wait for an update or a free place; no longer than for as long as a request may take."""
        started = time.monotonic()
        while True:
            # Before the look: what has come by now counts, however long it takes to read it.
            before = time.monotonic()
            overdue = [each for each in self.under_way if self._is_overdue(each, before)]
            # First of those that will not answer any more, or who is fast would hide them.
            for message_ids in (overdue, list(self.under_way)):
                for message_id, reply in pulled(self.grid.grid, message_ids):
                    if message_id in self.under_way:  # else nobody has asked
                        return self._arrived(message_id, reply)
                if overdue:
                    self._miss(overdue[0])
                    return True
            if before - self._looked > PAUSE and (idle := waiting()):
                self._look()
                if any(map(self.is_free, idle)):
                    return True
            if not self.under_way and not self._may_come(waiting(), before - started):
                return False
            time.sleep(pause_after(time.monotonic() - started))

    def give_up(self) -> None:
        """Wait no more for what is under way; its nodes are asked again once they have answered."""
        for message_id, each in list(self.under_way.items()):
            self._close(message_id)
            self.grid.busy.add(each.node, message_id, each.place.server_round, each.start)

    def trains(self, client: int) -> bool:
        """Return whether the client's node works on a request."""
        return bool(self.grid.node_registry.assign([client], self.grid.busy.reserved))

    def _arrived(self, message_id: str, reply: Message | Exception) -> InFlight | bool:
        each = self._close(message_id)
        returned = reply if isinstance(reply, Message) else unreadable(each.message, reply)
        if returned.has_error() and returned.error.code == ErrorCode.NODE_UNAVAILABLE:
            part = NodeReply.of_failed_node(each.asked.clients, LOST).on_node(each.node)
        else:
            part = self.grid.read(each.node, returned, each.asked, self._traffic, each.patience)
        self._note(each, part)
        # One without examples goes along with the others, and is no update that a round waits for.
        counts = any(reply.weight(self.weighted_by or NUM_EXAMPLES) for reply in part.replies)
        return each.place if counts else True

    def _is_overdue(self, message_id: str, now: float) -> bool:
        """Return whether a request's node has gone, or has had its time."""
        each = self.under_way[message_id]
        return now - each.sent > each.patience or self.grid.has_gone(each.node, each.start)

    def _miss(self, message_id: str) -> None:
        """Let a request that is overdue have failed."""
        each = self._close(message_id)
        if self.grid.has_gone(each.node, each.start):
            part = NodeReply.of_failed_node(each.asked.clients, LOST).on_node(each.node)
        else:
            part = self.grid.read(each.node, None, each.asked, self._traffic, each.patience)
            self.grid.busy.add(each.node, message_id, each.place.server_round, each.start)
        self._note(each, part)

    def _close(self, message_id: str) -> UnderWay:
        each = self.under_way.pop(message_id)
        self.clock.in_flight.remove(each.place)
        del self.grid.busy.reserved[each.node]
        return each

    def _note(self, each: UnderWay, part: NodeReply) -> None:
        """Take in what came of a request, and what its client has saved, before it is asked anew."""
        self.grid.take_down([part], each.place.server_round)
        self._arrivals.append((each, part))
        self._look()

    def _look(self) -> None:
        """Look which clients' nodes are free."""
        self._looked = time.monotonic()
        self.grid.node_registry.update_if_due(self.grid.grid)
        free = self.grid.busy.wait_for_free(list(self.grid.node_registry.accepted), timeout=-1.0)
        assigned = self.grid.node_registry.assign(self._wave.requests, free)
        self._hosts = {client: node for node, clients in assigned.items() for client in clients}

    def _may_come(self, waiting: Collection[int], waited: float) -> bool:
        """Return whether to wait for nodes that still work on what was given up: if nobody else is left."""
        if self._arrivals or waited > self._timeout + self.grid.round_grace:
            return False
        return bool(self.grid.node_registry.assign(waiting, self.grid.node_registry.accepted))
