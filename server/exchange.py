"""Sending messages and waiting for their replies, over any Grid."""

import time
from collections.abc import Iterable

from flwr.app import Message
from flwr.serverapp import Grid

# A reply is looked for after 2 ms, then ever less often: short rounds wait little, long ones poll little.
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.002, 0.25, 1.1


def exchange(grid: Grid, messages: Iterable[Message], timeout: float) -> list[Message]:
    """Push the messages and return the replies that arrive within `timeout` seconds.

    Flower's own grids look for replies at a fixed interval, of three seconds on real nodes.
    """
    pending = {message_id for message_id in grid.push_messages(list(messages)) if message_id}
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE
    replies: list[Message] = []
    while pending:
        arrived = list(grid.pull_messages(pending))
        replies += arrived
        pending -= {reply.metadata.reply_to_message_id for reply in arrived}
        if not pending or time.monotonic() > deadline:
            break
        time.sleep(pause)
        pause = min(pause * GROWTH, LONGEST_PAUSE)
    return replies


def one_line(reason: str | None) -> str:
    """Return the line of an error report, which may be a whole stack trace, that names the cause."""
    lines = [line.strip() for line in (reason or "no reason given").splitlines() if line.strip()]
    return lines[-1].removesuffix("'>") if lines else "no reason given"
