"""Until when a node works for a round, and how its clients share that time.

A client looks at the deadline before every batch and when it has trained. What hangs within a batch never
looks: an alarm interrupts it a little later, where Python can set one. Either way the client is late and
fails, and its node answers for the others.
"""

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from strategies.wire.reply import NodeReply
from strategies.wire.request import ClientRequest

ALARM_AFTER = 2.0
"""Seconds between a deadline and its alarm: most batches end within, and a client then stops between two."""

Turn = Callable[[ClientRequest, "Deadline"], None]
"""Does what a client is asked for, and collects its reply."""


class LateError(TimeoutError):
    """A client was not done by its deadline."""


@dataclass(frozen=True)
class Deadline:
    """A moment on this process's own clock."""

    at: float = math.inf
    """Of time.monotonic(); infinity is never."""
    limit: float = math.inf
    """Seconds that the round had when the node got its message, for the error."""

    @staticmethod
    def after(seconds: float) -> "Deadline":
        """Return the moment so many seconds from now."""
        return Deadline(time.monotonic() + seconds, seconds)

    @property
    def left(self) -> float:
        """Seconds until then; negative once it has passed."""
        return self.at - time.monotonic()

    def check(self) -> None:
        """Raise LateError once it has passed."""
        if time.monotonic() > self.at:
            raise self.late()

    def halfway(self) -> "Deadline":
        """Return the moment when half of the time that is left will have passed."""
        return Deadline(time.monotonic() + self.left / 2, self.limit)

    def late(self) -> LateError:
        """Return the error of a client that is not done by now."""
        return LateError(f"not done within the {self.said}")

    @property
    def said(self) -> str:
        """The time that there was, in words."""
        return f"{self.limit:.3g} s that the round had (round-timeout)"


NEVER = Deadline()


def take_turns(requests: Sequence[ClientRequest], deadline: Deadline, reply: NodeReply, turn: Turn) -> None:
    """Let client after client work until the deadline; whatever one client does, the others' work counts.

    A client that takes more than half of the time that is left, while others wait, is stopped and begins anew
    once they have had their turns, so that one slow client does not cost the others their round. It comes to
    the same result then, as all that it draws is its own.
    """
    waiting, put_off = deque(requests), deque[ClientRequest]()
    while waiting:
        request = waiting.popleft()
        mine = deadline.halfway() if waiting else deadline
        try:
            if deadline.left < 0:
                raise LateError(f"its turn did not come: the clients before it took the {deadline.said}")
            turn(request, mine)
        except LateError as error:
            if waiting and deadline.left > 0:
                put_off.append(request)
            else:
                reply.fail(request.client, error)
        except Exception as error:
            reply.fail(request.client, error)
        if not waiting:
            waiting, put_off = put_off, deque()


@contextmanager
def interrupted_after(deadline: Deadline) -> Iterator[None]:
    """Raise LateError in what is done meanwhile, ALARM_AFTER the deadline.

    Signals reach Python's main thread alone, and only Unix has alarms; elsewhere, and where somebody else has
    set one, nothing is interrupted.
    """
    can = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    if not can or math.isinf(deadline.at) or any(signal.getitimer(signal.ITIMER_REAL)):
        yield
        return

    def ring(*_: object) -> None:
        raise deadline.late()

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(deadline.left, 0.0) + ALARM_AFTER)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
