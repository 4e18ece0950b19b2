"""Sending messages and waiting for their replies, over any Grid."""

import time
from collections import deque
from collections.abc import Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

SHORTEST_PAUSE, LONGEST_PAUSE = 0.005, 0.25
"""Seconds between two looks for replies."""
PART_OF_WAIT = 0.05
"""A pause is this part of the time waited so far: short rounds do not wait long, long ones poll little."""


def exchange(grid: Grid, messages: Iterable[Message], timeout: float) -> Iterator[Message]:
    """Push the messages and yield the replies as they arrive, those of `timeout` seconds.

    None of them is held here, so that whoever reads one can let go of it before the next one comes. Flower's
    own grids look for replies at a fixed interval, of three seconds on real nodes.
    """
    if getattr(grid, "waits_by_itself", False):
        yield from grid.answers(messages, timeout)  # type: ignore[attr-defined]
        return
    pending = {message_id for message_id in grid.push_messages(list(messages)) if message_id}
    started = time.monotonic()
    while pending:
        # Before the look: what has come by now counts, however long it takes to read it.
        waited = time.monotonic() - started
        arrived = deque(grid.pull_messages(pending))
        pending -= {reply.metadata.reply_to_message_id for reply in arrived}
        while arrived:
            yield arrived.popleft()
        if not pending or waited > timeout:
            break
        waited = time.monotonic() - started
        time.sleep(min(max(waited * PART_OF_WAIT, SHORTEST_PAUSE), LONGEST_PAUSE))


def one_line(reason: str | None) -> str:
    """Return the line of an error report, which may be a whole stack trace, that names the cause."""
    lines = [line.strip() for line in (reason or "no reason given").splitlines() if line.strip()]
    return lines[-1].removesuffix("'>") if lines else "no reason given"
