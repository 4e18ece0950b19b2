"""Sending messages and waiting for their replies, over any Grid."""

import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from models.core.tracebacks import line_of

SHORTEST_PAUSE, LONGEST_PAUSE = 0.005, 0.25
"""Seconds between two looks for replies."""
PART_OF_WAIT = 0.05
"""A pause is this part of the time waited so far: short rounds do not wait long, long ones poll little."""
NOT_SENT = "its request could not be sent"
MALFORMED = (
    ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, EOFError,
    RecursionError, MemoryError, DecodeError,
)  # fmt: skip
"""What Flower raises where a node has sent something else than a message; not what a connection raises."""


def exchange(
    grid: Grid, messages: Iterable[Message], timeout: float, gone: Callable[[], Container[int]] = tuple
) -> Iterator[Message]:
    """Push the messages and yield the replies as they arrive, those of `timeout` seconds.

    What could not be sent, as what is too large for the SuperLink, is answered by an error at once.

    Meanwhile `gone` is asked which nodes have lost what they were sent: they are waited for no longer.

    None of them is held here, so that whoever reads one can let go of it before the next one comes. Flower's
    own grids look for replies at a fixed interval, of three seconds on real nodes.
    """
    if getattr(grid, "waits_by_itself", False):
        yield from grid.answers(messages, timeout)  # type: ignore[attr-defined]
        return
    asked = list(messages)
    pending = {message_id for message_id in grid.push_messages(asked) if message_id}
    sent = {message.metadata.message_id: message for message in asked}
    started = time.monotonic()
    for message_id in [each for each in sent if each not in pending]:
        yield Message(Error(ErrorCode.UNKNOWN, NOT_SENT), reply_to=sent[message_id])
    while pending:
        # Before the look: what has come by now counts, however long it takes to read it.
        waited = time.monotonic() - started
        for message_id, reply in pulled(grid, frozenset(pending)):
            if message_id in pending:  # else nobody has asked, or it has been answered
                pending.discard(message_id)
                yield reply if isinstance(reply, Message) else unreadable(sent[message_id], reply)
            del reply  # it may hold as much as a model, and the next one is pulled now
        lost = gone() if pending else ()
        pending = {each for each in pending if sent[each].metadata.dst_node_id not in lost}
        if not pending or waited > timeout:
            break
        time.sleep(pause_after(time.monotonic() - started))


def pulled(grid: Grid, message_ids: Collection[str]) -> Iterator[tuple[str, Message | Exception]]:
    """Yield which messages are answered, and by what; by an exception where the answer is none to Flower.

    Each is pulled by itself: what cannot be read would take those with it that were pulled along.
    """
    if simulated_by_flower(grid):  # which holds the answers themselves, and there are thousands of them
        replies = deque(grid.pull_messages(message_ids))
        while replies:
            yield replies[0].metadata.reply_to_message_id, replies.popleft()
        return
    for message_id in list(message_ids):
        try:
            for reply in grid.pull_messages([message_id]):
                yield reply.metadata.reply_to_message_id, reply
                del reply  # before the next one is pulled
        except MALFORMED as error:
            yield message_id, error


def simulated_by_flower(grid: Grid) -> bool:
    """Return whether the nodes are those of Flower's simulation, in this process and its workers."""
    # Importing what is not there yet takes a second, as it brings Flower's databases and web servers.
    inmemory_grid = sys.modules.get("flwr.superlink.grid.inmemory_grid")
    return inmemory_grid is not None and isinstance(grid, inmemory_grid.InMemoryGrid)


def unreadable(asked: Message, error: Exception) -> Message:
    """Return the error that takes the place of an answer that cannot be read."""
    if isinstance(error, MemoryError):
        why = f"its answer could not be read here ({line_of(error)})"
        return Message(Error(ErrorCode.UNKNOWN, why), reply_to=asked)
    why = f"its answer is no message of Flower's ({type(error).__name__}: {error!s:.200})"
    return Message(Error(ErrorCode.UNKNOWN, why), reply_to=asked)


def pause_after(waited: float) -> float:
    """Return how many seconds to wait for the next look for replies, after so many without any."""
    return min(max(waited * PART_OF_WAIT, SHORTEST_PAUSE), LONGEST_PAUSE)


def one_line(reason: str | None) -> str:
    """Return the line of an error report, which may be a whole stack trace, that names the cause."""
    lines = [line.strip() for line in (reason or "no reason given").splitlines() if line.strip()]
    return lines[-1].removesuffix("'>") if lines else "no reason given"
