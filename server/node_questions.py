"""Asks nodes who they are, and hears their answers without waiting for them."""

import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from logging import WARNING

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from models.core.log import log
from models.core.tracebacks import plain_line, traceback_of
from server.exchange import exchange, one_line, pulled
from server.sightings import Sighting
from strategies.wire.node import NodeDescription, NodeError
from strategies.wire.vocabulary import Vocabulary

GONE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)
"""Flower's error codes for a node that can no longer be reached."""
UNREADABLE = "its answer to who it is cannot be read: do server and nodes have the same polyfed?"
AGAIN = 1.0
"""Seconds after which a node is asked again that went before it answered."""


@dataclass
class Question:
    """Asked of a node that has not answered yet."""

    sighting: Sighting
    since: float
    """On the monotonic clock."""
    told: bool = False
    """Whether the log says that it is slow."""


Said = tuple[Sighting, NodeDescription | NodeError]
"""What a node has answered: what it is, or why it cannot take part."""


@dataclass
class NodeQuestions:
    """The nodes that are being asked who they are."""

    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    """What nodes are told to read their own data with."""
    open: dict[str, Question] = field(default_factory=dict)
    """By the message's id."""
    _asked: dict[int, float] = field(default_factory=dict)
    """Node -> when it was asked last."""

    @property
    def nodes(self) -> set[int]:
        """The nodes that have not answered yet."""
        return {each.sighting.node for each in self.open.values()}

    def forget_all_but(self, seen: Mapping[int, Sighting]) -> None:
        """Wait no more for nodes that have gone, or were started anew."""
        self.open = {
            id_: each for id_, each in self.open.items() if seen.get(each.sighting.node) == each.sighting
        }

    def tell_slow(self, patience: float) -> None:
        """Say, once of each, which nodes have not answered for so many seconds."""
        for each in self.open.values():
            if not each.told and time.monotonic() - each.since > patience:
                each.told = True
                said = "%s connected %.0f s ago and has not answered who it is; it is used once it has"
                log(WARNING, said, each.sighting.called, time.monotonic() - each.since)

    def ask(self, grid: Grid, sightings: Collection[Sighting], timeout: float = math.inf) -> Iterator[Said]:
        """Ask nodes, and yield what any node has answered by now.

        Nodes of polyfed's own runtimes are waited for, up to the timeout.
        """
        now = time.monotonic()
        due = [each for each in sightings if now - self._asked.get(each.node, -math.inf) >= AGAIN]
        self._asked = {each.node: now for each in due} | {
            node: when for node, when in self._asked.items() if now - when < AGAIN
        }
        queries = {
            each.node: Message(RecordDict({**self.vocabulary.pack()}), each.node, "query") for each in due
        }
        if getattr(grid, "waits_by_itself", False):
            of_node = {each.node: each for each in due}
            for reply in exchange(grid, queries.values(), timeout):
                yield from _said(of_node[reply.metadata.src_node_id], reply)
            return
        if queries:
            grid.push_messages(list(queries.values()))
        for each in due:
            self.open[queries[each.node].metadata.message_id] = Question(each, now)
        if self.open:
            for message_id, answer in pulled(grid, list(self.open)):
                question = self.open.pop(message_id, None)
                if question is None:
                    continue
                if isinstance(answer, Message):
                    yield from _said(question.sighting, answer)
                else:
                    yield question.sighting, NodeError(UNREADABLE, traceback_of(answer))


def _said(sighting: Sighting, reply: Message) -> Iterator[Said]:
    """Yield what a reply says; nothing for a node that has gone before it answered."""
    try:
        if reply.has_error():
            reason = reply.error.reason or ""
            if reply.error.code not in GONE:
                yield sighting, NodeError(plain_line(one_line(reason)), reason)
            return
        said = NodeDescription.unpack(reply.content)
    except NodeError as error:
        yield sighting, NodeError(plain_line(str(error)), error.whole, error.place)
    except Exception as error:  # a node may send anything
        yield sighting, NodeError(UNREADABLE, traceback_of(error))
    else:
        yield sighting, said
