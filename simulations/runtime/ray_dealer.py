"""Deals one message's clients to the workers, and deals those of a worker that dies once more."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from models.core.tracebacks import line_of
from server.errors import NodesFailedError
from server.exchange import one_line
from simulations.runtime.portions import Portion
from simulations.runtime.ray_workers import RayWorkers, Seat
from strategies.wire.reply import ClientFailure, NodeReply

DEPTH = 2
"""Portions that a worker has at a time: it begins with the next one while the driver hears of the last."""
MOST_DEATHS = 2
"""Workers that a client may cost: with the second it has failed."""
LONGEST_WAIT = 1000.0
"""Seconds that Ray is asked to wait at a time: it takes no infinity."""
DEATHS = (RayActorError, OutOfMemoryError)


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
    parts: list[NodeReply] = field(default_factory=list)
    _waiting: deque[Portion] = field(default_factory=deque)
    _asked: dict[Any, _Dealt] = field(default_factory=dict)
    """Ray's reference to an answer -> what was asked, in the order of asking."""
    _held: dict[Seat, list[Portion]] = field(default_factory=dict)
    """Portions whose sum a worker still holds, and has not been asked for."""
    _told: dict[Seat, Any] = field(default_factory=dict)
    """The worker in a seat that was sent the content, which it keeps."""
    _cost: Counter[int] = field(default_factory=Counter)
    """Workers that died while they worked for a client."""

    def deal(self, portions: Sequence[Portion], patience: float) -> NodeReply:
        """Return what the clients reply; those that are not done in `patience` seconds have failed."""
        self._waiting.extend(portions)
        give_up = time.monotonic() + patience
        while self._waiting or self._asked or self._held:
            self._ask()
            left = max(give_up - time.monotonic(), 0.0)
            ready, _ = ray.wait(list(self._asked), timeout=min(left, LONGEST_WAIT))
            for answer in ready:
                self._hear(answer)
            if not ready and time.monotonic() >= give_up:
                self._give_up(patience)
        whole = NodeReply.merged(self.parts)
        workers = {part.worker for part in self.parts}
        whole.seconds = max(
            (sum(part.seconds for part in self.parts if part.worker == each) for each in workers), default=0.0
        )
        return whole

    def _ask(self) -> None:
        """Give workers that have too little to do their next portions."""
        for seat in self.workers.seats:
            portions = [each.clients for each in self._asked.values() if each.seat is seat]
            asked = DEPTH if any(map(self._is_suspect, portions)) else len(portions)
            while self._waiting and asked < DEPTH and not (asked and self._is_suspect(self._waiting[0])):
                clients = self._waiting.popleft()
                if self._is_suspect(clients):
                    self._ask_to_hand_over(seat)  # what it holds is not to be lost with it
                left = max(self.until - time.monotonic(), 0.0)
                shared = [] if self._told.get(seat) is seat.actor else [self.shared]
                self._told[seat] = seat.actor
                answer = seat.actor.do.remote(self.number, shared, self.message_type, clients, left)
                self._asked[answer] = _Dealt(seat, clients)
                asked = DEPTH if self._is_suspect(clients) else asked + 1
        if not self._waiting:
            for seat in list(self._held):
                if all(each.seat is not seat for each in self._asked.values()):
                    self._ask_to_hand_over(seat)

    def _ask_to_hand_over(self, seat: Seat) -> None:
        # At once, as Ray may give the answer to what the worker is asked next before this one.
        if portions := self._held.pop(seat, None):
            self._asked[seat.actor.hand_over.remote()] = _Dealt(seat, (), portions)

    def _is_suspect(self, clients: Portion) -> bool:
        return any(self._cost[client] for client in clients)

    def _hear(self, answer: Any) -> None:
        """Take an answer, or what befell the worker instead."""
        if answer not in self._asked:  # of a worker that has died meanwhile
            return
        dealt = self._asked[answer]
        try:
            reply = ray.get(answer)
        except DEATHS as error:
            self._bury(dealt.seat, error)
            return
        except RayTaskError as error:  # of the worker, so of each of its clients
            reply = NodeReply.of_failed_node(dealt.all_clients(), line_of(error.cause), str(error))
        del self._asked[answer]
        if dealt.clients and reply is None:
            self._held.setdefault(dealt.seat, []).append(dealt.clients)
        if reply is not None:
            reply.worker = dealt.seat.number
            self.parts.append(reply)

    def _bury(self, seat: Seat, error: Exception) -> None:
        """Replace a worker that has died; what it had done and not handed over is done again."""
        asked = [each for each in self._asked.values() if each.seat is seat]
        lost = [each.clients for each in asked if each.clients]
        self._asked = {answer: each for answer, each in self._asked.items() if each.seat is not seat}
        done = [*self._held.pop(seat, []), *(portion for each in asked for portion in each.handed_over)]
        why = how_it_died(error)
        if not seat.has_begun():
            raise NodesFailedError(f"a worker could not begin: {why}")
        self.workers.replace(seat, why)
        first, *others = lost or [()]
        self._cost.update(first)
        again = [*done, *others]
        for client in first:  # each by itself, which shows whose fault it was
            if len(first) == 1 and self._cost[client] >= MOST_DEATHS:
                said = f"{self._cost[client]} workers died while they worked for it: {why}"
                self.parts.append(NodeReply(failures=[ClientFailure(client, said, str(error))]))
            else:
                again.append((client,))
        self._waiting.extend(again)

    def _give_up(self, patience: float) -> None:
        """Fail the clients that are not done; a worker that still works for one is replaced."""
        why = f"its worker did not answer within {patience:g} s (round-timeout + round-grace)"
        late = {each.seat: None for each in self._asked.values()}
        clients = [client for each in self._asked.values() for client in each.all_clients()]
        clients += [client for portion in self._waiting for client in portion]
        clients += [client for seat in late for portion in self._held.get(seat, []) for client in portion]
        self.parts.append(NodeReply.of_failed_node(sorted(clients), why))
        for seat in late:
            self.workers.replace(seat, why)
            self._held.pop(seat, None)
        self._asked, self._waiting = {}, deque()


def how_it_died(error: Exception) -> str:
    """Return why a worker died, in one line."""
    said = str(error)
    if isinstance(error, OutOfMemoryError) or "OutOfMemory" in said or "out of memory" in said.lower():
        return f"it ran out of memory: {one_line(said)}"
    return f"it died or was killed: {one_line(said)}"
