"""A Grid over Ray: its one node hosts every client, and its workers are dealt them as they get free."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from logging import INFO, WARNING

import ray
from flwr.app import Message, MessageType, RecordDict

from clients.stacked import stacks
from models.core.log import log
from server.errors import NodesFailedError
from simulations.runtime.own_grid import OwnGrid
from simulations.runtime.portions import Portion, dealt
from simulations.runtime.ray_dealer import Dealer
from simulations.runtime.ray_worker import NODE
from simulations.runtime.ray_workers import RayWorkers
from strategies.wire.node import NodeError
from strategies.wire.records import clients_of, num_bytes
from strategies.wire.reply import NodeReply
from strategies.wire.request import info_of

LOST = "it was done, and in the sum of a worker that did not answer in time (round-timeout + round-grace)"
"""What befell clients that did their part, once or twice."""
SMALL = 500_000
"""Bytes of a message below which each worker is sent a copy: its way by the object store takes longer."""


class RayGrid(OwnGrid):
    """Sends a message's content to Ray's object store once, where all workers of a machine read it."""

    def __init__(
        self,
        workers: RayWorkers,
        *,
        stacked: bool,
        stack_size: int = 1,
        size_of: Callable[[int], int] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`size_of` says how many examples a client has; `check` raises where the run is to end."""
        super().__init__()
        self.workers, self.stacked, self.size_of, self.check = workers, stacked, size_of, check
        self.stack_size = stack_size
        self._messages = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the node."""
        return [NODE]

    def let_go(self) -> None:
        """Let Ray end, where it was started for this run, while the server draws its figures."""
        self.workers.let_go()

    def answer(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """Return the node's answers."""
        return [Message(self._answer(each, timeout or math.inf), reply_to=each) for each in messages]

    def _answer(self, message: Message, patience: float) -> RecordDict:
        self.check()
        if message.metadata.message_type == "query":
            return self._describe(patience)
        clients, info = clients_of(message.content), info_of(message.content)
        small = num_bytes(message.content) < SMALL
        shared = message.content if small else ray.put(message.content)
        # Clients that evaluate depend on nobody, whatever the engine.
        stacked = self.stacked and message.metadata.message_type == MessageType.TRAIN

        def deal(portions: Sequence[Portion]) -> Dealer:
            self._messages += 1
            until = time.monotonic() + info.seconds_left
            asked = self._messages, shared, message.metadata.message_type, until, info.client_seconds
            dealer = Dealer(self.workers, *asked, together=stacked)
            dealer.deal(portions, patience)
            return dealer

        try:
            # Alone, a client's time is known, and which of them it was that took too long.
            dealer = deal(self._portions(clients, stacked=stacked, alone=info.client_seconds < math.inf))
            parts, undone = dealer.parts, dealer.undone
            if undone:
                log(WARNING, "%d clients do their work again: %s", sum(map(len, undone)), LOST)
                dealer = deal(undone)
                parts += dealer.parts
                parts += [NodeReply.of_failed_node(lost, f"{LOST}, twice") for lost in dealer.undone]
        except NodeError as error:
            failed = NodesFailedError(str(error))
            failed.add_note(error.whole)  # for errors.log
            raise failed from error
        return _side_by_side(parts).pack()

    def _portions(self, clients: Sequence[int], *, stacked: bool, alone: bool) -> list[Portion]:
        if stacked:
            return [tuple(part) for part in stacks(sorted(clients), self.stack_size)]
        portions = dealt(clients, len(self.workers.seats), self.size_of)
        return [(client,) for portion in portions for client in portion] if alone else portions

    def _describe(self, patience: float) -> RecordDict:
        """Return what the workers say of the node, or why they cannot take part."""
        if self.workers.where:
            log(INFO, "%s", self.workers.where)
        try:
            return self.workers.describe(patience)
        except NodeError as error:
            return error.pack()


def _side_by_side(parts: Sequence[NodeReply]) -> NodeReply:
    """Return the replies of workers as those of one node, which takes as long as the busiest of them."""
    whole = NodeReply.merged(parts)
    seconds: dict[int, float] = defaultdict(float)
    for part in parts:
        seconds[part.worker] += part.seconds
    whole.seconds = max(seconds.values(), default=0.0)
    return whole
