"""Sending messages and waiting for their replies, over any Grid."""

import time
from collections.abc import Iterable

from flwr.app import Message
from flwr.serverapp import Grid

SHORTEST_PAUSE, LONGEST_PAUSE = 0.005, 0.25
"""Seconds between two looks for replies."""
PART_OF_WAIT = 0.05
"""A pause is this part of the time waited so far: short rounds do not wait long, long ones poll little."""


def exchange(grid: Grid, messages: Iterable[Message], timeout: float) -> list[Message]:
    """Push the messages and return the replies that arrive within `timeout` seconds.

    Flower's own grids look for replies at a fixed interval, of three seconds on real nodes.
    """
    if getattr(grid, "waits_by_itself", False):
        return list(grid.send_and_receive(messages, timeout=timeout))
    pending = {message_id for message_id in grid.push_messages(list(messages)) if message_id}
    started = time.monotonic()
    replies: list[Message] = []
    while pending:
        arrived = list(grid.pull_messages(pending))
        replies += arrived
        pending -= {reply.metadata.reply_to_message_id for reply in arrived}
        waited = time.monotonic() - started
        if not pending or waited > timeout:
            break
        time.sleep(min(max(waited * PART_OF_WAIT, SHORTEST_PAUSE), LONGEST_PAUSE))
    return replies


def one_line(reason: str | None) -> str:
    """Return the line of an error report, which may be a whole stack trace, that names the cause."""
    lines = [line.strip() for line in (reason or "no reason given").splitlines() if line.strip()]
    return lines[-1].removesuffix("'>") if lines else "no reason given"
