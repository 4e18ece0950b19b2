"""Deals one message's clients to the workers, and deals those of a worker that is lost once more."""

import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayTaskError

from models.core.tracebacks import line_of
from simulations.runtime.portions import Portion
from simulations.runtime.ray_workers import DEATHS, LONGEST_WAIT, RayWorkers, Seat, how_it_died
from strategies.wire.reply import ClientFailure, NodeReply

DEPTH = 2
"""Portions that a worker has at a time: it begins with the next one while the driver hears of the last."""
MOST_LOST = 2
"""Workers that a client may cost: with the second it has failed."""


@dataclass(frozen=True)
class _Dealt:
    """What a worker was asked last."""

    seat: Seat
    clients: Portion
    """() where it is to hand over what it holds."""
    handed_over: Sequence[Portion] = ()
    """Portions of which that is the sum."""

    def all_clients(self) -> Portion:
        """Return the clients for whom nobody has an answer yet."""
        return tuple(client for portion in (self.clients, *self.handed_over) for client in portion)


@dataclass
class Dealer:
    """A message on its way through the workers."""

    workers: RayWorkers
    number: int
    """Of the message; no two have the same."""
    shared: Any
    """Ray's reference to its content, or a small content itself."""
    message_type: str
    until: float
    """Of time.monotonic(): when the clients have to be done."""
    client_seconds: float = math.inf
    """Seconds that a client may take by itself; the worker of one that takes longer is ended."""
    together: bool = False
    """Whether a client's result depends on its portion, which is then done again as it was."""
    parts: list[NodeReply] = field(default_factory=list)
    """What the clients reply, as far as it is known."""
    undone: list[Portion] = field(default_factory=list)
    """Portions that were done, and lost with workers that did not answer in time."""
    _waiting: deque[Portion] = field(default_factory=deque)
    _asked: dict[Any, _Dealt] = field(default_factory=dict)
    """Ray's reference to an answer -> what was asked, in the order of asking."""
    _held: dict[Seat, list[Portion]] = field(default_factory=dict)
    """Portions whose sum a worker still holds, and has not been asked for."""
    _since: dict[Seat, float] = field(default_factory=dict)
    """When a worker began with what it was asked first: nobody has heard of it since."""
    _told: dict[Seat, Any] = field(default_factory=dict)
    """The worker in a seat that was sent the content, which it keeps."""
    _cost: Counter[int] = field(default_factory=Counter)
    """Workers that were lost while they worked for a client."""

    def deal(self, portions: Sequence[Portion], patience: float) -> None:
        """Collect what the clients reply; those that are not done in `patience` seconds have failed.

        Raises NodeError where workers cannot be replaced.
        """
        self._waiting.extend(portions)
        give_up = time.monotonic() + patience
        while self._waiting or self._asked or self._held:
            self._ask()
            beginning = self.workers.beginning()
            left = min([give_up, *(until for _, until in self._limits())]) - time.monotonic()
            ready, _ = ray.wait([*self._asked, *beginning], timeout=min(max(left, 0.0), LONGEST_WAIT))
            for answer in ready:
                if answer in beginning:
                    self.workers.hear(beginning[answer])
                else:
                    self._hear(answer)
            self._end_overdue()
            if not ready and time.monotonic() >= give_up:
                self._give_up(patience)

    def _ask(self) -> None:
        """Give workers that have too little to do their next portions, each a first before a second one."""
        for depth in range(DEPTH):
            for seat in self.workers.seats:
                # Before it has begun a worker would be late, or too slow.
                if seat.ready and self._waiting and self._takes_another(seat, depth):
                    self._ask_seat(seat, self._waiting.popleft())
        if not self._waiting:
            for seat in list(self._held):
                if all(each.seat is not seat for each in self._asked.values()):
                    self._ask_to_hand_over(seat)

    def _takes_another(self, seat: Seat, depth: int) -> bool:
        """Return whether a worker that has `depth` portions takes the next one; a suspect one is alone."""
        portions = [each.clients for each in self._asked.values() if each.seat is seat]
        if any(map(self._is_suspect, portions)) or (portions and self._is_suspect(self._waiting[0])):
            return False
        return len(portions) <= depth

    def _ask_seat(self, seat: Seat, clients: Portion) -> None:
        if self._is_suspect(clients):
            self._ask_to_hand_over(seat)  # what it holds is not to be lost with it
        left = max(self.until - time.monotonic(), 0.0)
        shared = [] if self._told.get(seat) is seat.actor else [self.shared]
        self._told[seat] = seat.actor
        answer = seat.actor.do.remote(self.number, shared, self.message_type, clients, left)
        self._note(answer, _Dealt(seat, clients))

    def _ask_to_hand_over(self, seat: Seat) -> None:
        # At once, as Ray may give the answer to what the worker is asked next before this one.
        if portions := self._held.pop(seat, None):
            self._note(seat.actor.hand_over.remote(), _Dealt(seat, (), portions))

    def _note(self, answer: Any, dealt: _Dealt) -> None:
        if all(each.seat is not dealt.seat for each in self._asked.values()):
            self._since[dealt.seat] = time.monotonic()
        self._asked[answer] = dealt

    def _is_suspect(self, clients: Portion) -> bool:
        return any(self._cost[client] for client in clients)

    def _hear(self, answer: Any) -> None:
        """Take an answer, or what befell the worker instead."""
        if answer not in self._asked:  # of a worker that has died meanwhile
            return
        seat = self._asked[answer].seat
        try:
            self._take(answer)
        except DEATHS as error:
            # What it has answered before, which nobody has heard, shows with what it died.
            for other in [each for each, dealt in self._asked.items() if dealt.seat is seat]:
                with suppress(*DEATHS):
                    if ray.wait([other], timeout=0)[0]:
                        self._take(other)
            self._lose(seat, how_it_died(error), str(error))

    def _take(self, answer: Any) -> None:
        """Take an answer that is there; raise where it is that the worker has died."""
        dealt = self._asked[answer]
        try:
            reply = ray.get(answer)
        except RayTaskError as error:  # of the worker, so of each of its clients
            reply = NodeReply.of_failed_node(dealt.all_clients(), line_of(error.cause), str(error))
        del self._asked[answer]
        self._since[dealt.seat] = time.monotonic()
        if dealt.clients and reply is None:
            self._held.setdefault(dealt.seat, []).append(dealt.clients)
        if reply is not None:
            reply.worker = dealt.seat.number
            self.parts.append(reply)

    def _limits(self) -> Iterator[tuple[Any, float]]:
        """Yield the answer that each busy worker owes first, and until when; infinity is no limit."""
        first = {each.seat: answer for answer, each in reversed(self._asked.items())}
        for seat, answer in first.items() if self.client_seconds < math.inf else ():
            seconds = len(self._asked[answer].clients) * self.client_seconds
            yield answer, self._since[seat] + (seconds or math.inf)

    def _end_overdue(self) -> None:
        """Replace the workers whose client takes too long."""
        overdue = [answer for answer, until in self._limits() if time.monotonic() >= until]
        for answer in overdue:
            # It may still be on its way here from another machine.
            is_there, _ = ray.wait([answer], timeout=0, fetch_local=False)
            if not is_there:
                dealt = self._asked[answer]
                late = f"not done within {_limit(dealt.clients, self.client_seconds)}"
                self._lose(dealt.seat, f"{_names(dealt.clients)} {late}", late=late)

    def _lose(self, seat: Seat, why: str, whole: str = "", *, late: str = "") -> None:
        """Replace a worker that has died, or is `late`; what it has not handed over is done again."""
        asked = self._forget(seat)
        at_work = [each.clients for each in asked if each.clients]
        first, *behind = at_work or [()]
        done = [*self._held.pop(seat, []), *(portion for each in asked for portion in each.handed_over)]
        self.workers.replace(seat, why)
        self._cost.update(first)
        self._waiting.extend([*done, *behind])
        if self.together and len(first) > 1 and self._cost[first[0]] < MOST_LOST:
            self._waiting.append(first)
        elif len(first) == 1 and self._cost[first[0]] >= MOST_LOST:
            lost = self._cost[first[0]]
            said = f"{lost} workers died while they worked for it: {why}"
            said = f"LateError: {late}, in {lost} tries" if late else said
            self.parts.append(NodeReply(failures=[ClientFailure(first[0], said, whole)]))
        else:
            self._waiting.extend((client,) for client in first)  # which shows whose fault it was

    def _forget(self, seat: Seat) -> list[_Dealt]:
        """Return what a worker has been asked, in order, and wait for none of it any more."""
        asked = [each for each in self._asked.values() if each.seat is seat]
        self._asked = {answer: each for answer, each in self._asked.items() if each.seat is not seat}
        return asked

    def _give_up(self, patience: float) -> None:
        """Fail the clients that are not done; a worker that still works is replaced.

        What was done by then, and is lost with it, is nobody's failure: it is `undone`.
        """
        limit = f"within {patience:g} s (round-timeout + round-grace)"
        why = f"its worker did not answer {limit}"
        waited = list(self._waiting)
        self._waiting.clear()
        for seat in {each.seat: None for each in self._asked.values()}:
            asked = self._forget(seat)
            first, *behind = [each.clients for each in asked if each.clients] or [()]
            self.parts.append(NodeReply.of_failed_node(first, why))
            waited += behind
            self.undone += [*self._held.pop(seat, []), *(each for one in asked for each in one.handed_over)]
            self.workers.replace(seat, why)
        no_turn = sorted(client for portion in waited for client in portion)
        self.parts.append(NodeReply.of_failed_node(no_turn, f"its turn did not come {limit}"))


def _limit(clients: Portion, client_seconds: float) -> str:
    if len(clients) == 1:
        return f"{client_seconds:g} s (client-timeout)"
    seconds = len(clients) * client_seconds
    return f"{seconds:g} s ({len(clients)} times client-timeout)"


def _names(clients: Portion) -> str:
    if len(clients) == 1:
        return f"client {clients[0]} was"
    return f"{len(clients)} clients, {clients[0]} to {clients[-1]}, were"
