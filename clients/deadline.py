"""Until when a node works for a round, how its clients share that time, and how long one of them may take.

A client looks at the deadline before every batch and when it has trained. What hangs within a batch never
looks: an alarm interrupts it a little later, where Python can set one. Either way the client is late and
fails, and its node answers for the others.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import WARNING

from models.core.log import log
from strategies.wire.reply import NodeReply
from strategies.wire.request import ClientRequest

ALARM_AFTER = 2.0
"""Seconds between a deadline and its alarm: most batches end within, and a client then stops between two."""

TRIES = 2
"""How often a client may take its turn that was stopped for client-timeout."""

Turn = Callable[[ClientRequest, "Deadline"], None]
"""Does what a client is asked for, and collects its reply."""


class LateError(TimeoutError):
    """A client was not done by its deadline."""


@dataclass(frozen=True)
class Deadline:
    """A moment on this process's own clock."""

    at: float = math.inf
    """Of time.monotonic(); infinity is never."""
    said: str = "the time that there was"
    """What passes until then, for the error."""
    each: float = math.inf
    """Seconds that one client may take of them (client-timeout)."""
    own: bool = False
    """Whether it comes of how long one client may take, which then may try again."""

    @staticmethod
    def after(seconds: float, each: float = math.inf) -> "Deadline":
        """Return the moment so many seconds from now, until when one client may take `each`."""
        said = f"the {seconds:.3g} s that the round had left (round-timeout)"
        return Deadline(time.monotonic() + seconds, said, each)

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
        half = self.left / 2
        of_what = "client-timeout" if self.own else "round-timeout"
        said = f"{half:.3g} s, half of what was left of {of_what} while others of its node wait"
        return Deadline(time.monotonic() + half, said)

    def for_one(self, *, others_wait: bool) -> "Deadline":
        """Return until when the client may work whose turn it is."""
        shared = self.halfway() if others_wait else self
        return self._within(self.each, f"{self.each:g} s (client-timeout)", shared)

    def for_stack(self, size: int) -> "Deadline":
        """Return until when a stack of that many clients may work, which step together."""
        seconds = size * self.each
        return self._within(seconds, f"{seconds:g} s ({size} times client-timeout)", self)

    def _within(self, seconds: float, said: str, shared: "Deadline") -> "Deadline":
        """Return the moment so many seconds from now, or the one that is shared where that comes first."""
        if seconds >= shared.left:
            return shared
        return Deadline(time.monotonic() + seconds, said, own=True)

    def late(self) -> LateError:
        """Return the error of a client that is not done by now."""
        return LateError(f"not done within {self.said}")


NEVER = Deadline()


def take_turns(requests: Sequence[ClientRequest], deadline: Deadline, reply: NodeReply, turn: Turn) -> None:
    """Let client after client work until the deadline; whatever one client does, the others' work counts.

    A client may take half of the time that is left while others wait, so that one slow client does not cost
    them their round. Clients that take alike long, and fit into the time, never take more than that. A client
    that is stopped for client-timeout begins once more, as if it had not: it has left nothing behind.
    """
    with _alarm(deadline):
        for place, request in enumerate(requests):
            try:
                if deadline.left < 0:
                    raise LateError(f"its turn did not come: the clients before it took {deadline.said}")
                _take_turn(request, deadline, place + 1 < len(requests), turn)
            except Exception as error:  # whatever one client does
                reply.fail(request.client, error)


def _take_turn(request: ClientRequest, deadline: Deadline, others_wait: bool, turn: Turn) -> None:
    for number in range(1, TRIES + 1):
        mine = deadline.for_one(others_wait=others_wait)
        try:
            turn(request, mine)
            return
        except LateError as error:
            if not mine.own:
                raise
            if number == TRIES:
                raise LateError(f"{error}, in {TRIES} tries") from error
            log(WARNING, "Client %d is tried once more: %s", request.client, error)


@contextmanager
def interrupted_after(deadline: Deadline) -> Iterator[None]:
    """Raise LateError in what is done meanwhile, ALARM_AFTER the deadline.

    Signals reach Python's main thread alone, and only Unix has alarms; elsewhere, and where somebody else has
    set one, nothing is interrupted.
    """
    with _alarm(deadline) as alarm:
        if alarm is None:
            yield
            return
        before = alarm.deadline
        try:
            alarm.wait_for(deadline)
            yield
        finally:
            alarm.wait_for(before)


class _Alarm:
    """Handles SIGALRM. Its timer is set anew only for an earlier time, as most deadlines never come."""

    def __init__(self) -> None:
        self.deadline = NEVER
        """Of what is done now."""
        self.rings_at = math.inf
        """Of time.monotonic()."""

    def wait_for(self, deadline: Deadline) -> None:
        """Ring ALARM_AFTER this deadline, instead of the one before."""
        self.deadline = deadline
        if deadline.at + ALARM_AFTER < self.rings_at:
            self.rings_at = deadline.at + ALARM_AFTER
            signal.setitimer(signal.ITIMER_REAL, max(deadline.left, 0.0) + ALARM_AFTER)

    def __call__(self, *_: object) -> None:
        """Raise LateError, or wait on, where the timer was set for what is done by now."""
        self.rings_at = math.inf
        if self.deadline.left + ALARM_AFTER > 0.01:
            self.wait_for(self.deadline)
        else:
            raise self.deadline.late()


@contextmanager
def _alarm(deadline: Deadline) -> Iterator[_Alarm | None]:
    """Return the alarm that is in place, or put one there meanwhile; None where there can or need be none."""
    can = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    if not can or math.isinf(deadline.at):
        yield None
        return
    before = signal.getsignal(signal.SIGALRM)
    if isinstance(before, _Alarm):
        yield before
        return
    if any(signal.getitimer(signal.ITIMER_REAL)):
        yield None
        return
    alarm = _Alarm()
    signal.signal(signal.SIGALRM, alarm)
    try:
        yield alarm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
