"""Nodes that have not answered in time and may still work: the next round is not for them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from server.errors import NodesFailedError
from server.exchange import LONGEST_PAUSE, one_line, pulled

# How Ray names an actor that has gone; Flower puts it back into its pool, and all later messages to it fail.
DEATHS = ("ActorDiedError", "ActorUnavailableError", "OutOfMemoryError", "RayActorError")
DEAD_WORKER = tuple(f"<class 'ray.exceptions.{name}'>" for name in DEATHS)
"""How Flower's simulation begins an error that was raised in the place of a ClientApp."""


@dataclass(frozen=True)
class _Message:
    """A message that a node has not answered."""

    node: int
    server_round: int
    start: str
    """Which start of the node it was sent to."""


class BusyNodes:
    """Remembers which messages nobody waits for any more, and whether their nodes are done with them."""

    def __init__(
        self, grid: Grid, *, simulated: bool, has_gone: Callable[[int, str], bool] = lambda _, __: False
    ) -> None:
        """`has_gone` says whether a node has gone, or was started anew, since a start."""
        self.grid = grid
        self.has_gone = has_gone
        self.simulated = simulated
        """Whether nodes are workers of this machine: of a real one, an answer must not end the run."""
        self.unanswered: dict[str, _Message] = {}
        """By the message's id."""
        self.to_drop: set[str] = set()
        """Messages to nodes that have gone since, which may have been answered: whoever carries the answers
        keeps them until they are pulled."""
        self.reserved: dict[int, int] = {}
        """Node -> the round of what it works on, where somebody else waits for its answer."""

    def add(self, node: int, message_id: str, server_round: int, start: str = "") -> None:
        """Remember a message that was given up, and which start of the node it was sent to."""
        self.unanswered[message_id] = _Message(node, server_round, start)

    def round_of(self, node: int) -> int:
        """Return the newest round that a node still works on; 0 for one that is free."""
        given_up = [each.server_round for each in self.unanswered.values() if each.node == node]
        return max([*given_up, self.reserved.get(node, 0)])

    def wait_for_free(self, connected: Sequence[int], timeout: float) -> list[int]:
        """Return the connected nodes that work on nothing; where all do, wait for the first to be done.

        Those that are reserved are not waited for. Raises NodesFailedError for a worker that died meanwhile.
        """
        open_to_all = [node for node in connected if node not in self.reserved]
        if not (self.unanswered or self.to_drop):
            return open_to_all
        deadline = time.monotonic() + timeout
        while True:
            self._hear(connected)
            busy = {each.node for each in self.unanswered.values()}
            free = [node for node in open_to_all if node not in busy]
            if free or not open_to_all or time.monotonic() > deadline:
                return free
            time.sleep(LONGEST_PAUSE)

    def _hear(self, connected: Sequence[int]) -> None:
        """Drop late answers, which nobody waits for any more, and messages that nodes have lost."""
        for message_id, reply in pulled(self.grid, [*self.unanswered, *self.to_drop]):
            if self.simulated and isinstance(reply, Message) and has_died(reply):
                raise worker_died(reply, "while it worked for an earlier round")
            self.unanswered.pop(message_id, None)
            self.to_drop.discard(message_id)
        self.to_drop |= self.unanswered.keys()
        self.unanswered = {
            id_: each
            for id_, each in self.unanswered.items()
            if each.node in connected and not self.has_gone(each.node, each.start)
        }
        self.to_drop -= self.unanswered.keys()


def has_died(reply: Message) -> bool:
    """Return whether Flower's simulation says that the node's worker is no more.

    It does so by the type of what Ray has raised, under a code that no exception of a ClientApp has; the
    words of an error are whatever a client's exception says.
    """
    if not reply.has_error() or reply.error.code != ErrorCode.UNKNOWN:
        return False
    return (reply.error.reason or "").startswith(DEAD_WORKER)


def worker_died(reply: Message, when: str) -> NodesFailedError:
    """Return the error that ends a run whose worker has died."""
    reason = reply.error.reason or ""
    how = "ran out of memory" if "OutOfMemoryError" in reason else "died or was killed"
    error = NodesFailedError(f"a worker {how} {when}: {one_line(reason)}")
    error.add_note(f"node {reply.metadata.src_node_id} said:\n{reason}")  # for errors.log
    return error
