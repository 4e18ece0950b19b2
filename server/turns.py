"""Which clients begin and which arrive in an asynchronous round, whatever time it goes by.

Asynchronous rounds are those of FedBuff (Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous
Aggregation", arXiv:2106.06639, algorithm 1): a number of clients train at any time, each on the model that
was the newest as it began, and the server makes a new model of every `buffer-size` updates that arrive. In a
simulation time follows from the seed; on real nodes it passes by itself.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from models.core.seeds import derive_seed

TRIES = 64
"""Draws after which all clients are looked at: where 1 in 7 is free, so many miss once in twenty thousand."""


@dataclass(frozen=True)
class InFlight:
    """A client that trains."""

    client: int
    server_round: int
    """The round that it began in."""
    end: float = 0.0
    """When it will be done, in simulated time; of a real node nobody knows."""


@dataclass
class Clock:
    """What time has come to; checkpoints carry it as JSON."""

    now: float = 0.0
    """Simulated seconds since the run began; 0 where time is real."""
    drawn: int = 0
    """Clients that were drawn so far."""
    in_flight: list[InFlight] = field(default_factory=list)
    """Clients that train, in the order in which they began."""


@dataclass(frozen=True)
class Turn:
    """What happens in an asynchronous round."""

    server_round: int
    begun: Sequence[int]
    """Clients that begin on the newest model, in order."""
    arrived: Sequence[InFlight]
    """Clients whose updates arrive, in the order of their arrival; some of them have begun just now."""


class Time(ABC):
    """What says when clients can begin, and when they arrive."""

    clock: Clock

    @abstractmethod
    def is_free(self, client: int) -> bool:
        """Return whether a client that does not train could begin now."""

    @abstractmethod
    def begin(self, server_round: int, client: int) -> None:
        """Let a client begin: it is in flight from now on."""

    @abstractmethod
    def wait(self, waiting: Callable[[], Collection[int]]) -> InFlight | bool:
        """Let time pass until a client arrives, in flight no more, and return it.

        True is that a client may begin instead: one of those `waiting`, which could take a free place, has
        come, or a place has got free without an update. False is that neither will ever be.
        """


class Places:
    """The places of clients that train at a time: one that gets free is taken at once."""

    def __init__(self, time: Time, seed: int, cohort: int) -> None:
        """Take how many places there are."""
        self.time, self.seed, self.cohort = time, seed, cohort
        self.first: list[int] = []
        """Clients that are asked before any other is drawn."""

    def turn(self, server_round: int, clients: Sequence[int], buffer_size: int) -> Turn:
        """Wait until `buffer_size` updates have arrived, or no more can, and let clients begin meanwhile.

        A client trains on a model once, so a place stays free where all others have trained on it.
        """
        begun: list[int] = []
        arrived: list[InFlight] = []

        def waiting() -> Collection[int]:
            if len(self.time.clock.in_flight) >= self.cohort:
                return ()
            busy = self._busy(begun)
            return [client for client in clients if client not in busy]

        self._fill(server_round, clients, begun)
        while len(arrived) < buffer_size:
            came = self.time.wait(waiting)
            if came is False:
                break
            if came is not True:
                arrived.append(came)
            if len(arrived) < buffer_size:
                self._fill(server_round, clients, begun)
        return Turn(server_round, begun, arrived)

    def _busy(self, begun: Collection[int]) -> set[int]:
        return {each.client for each in self.time.clock.in_flight} | set(begun)

    def _fill(self, server_round: int, clients: Sequence[int], begun: list[int]) -> None:
        """Let clients begin until as many train as may."""
        busy = self._busy(begun)

        def is_free(client: int) -> bool:
            return client not in busy and self.time.is_free(client)

        while len(self.time.clock.in_flight) < self.cohort:
            client = self._next(clients, is_free)
            if client is None:
                return
            begun.append(client)
            busy.add(client)
            self.time.begin(server_round, client)

    def _next(self, clients: Sequence[int], is_free: Callable[[int], bool]) -> int | None:
        for client in self.first:
            if client in clients and is_free(client):
                self.first.remove(client)
                return client
        return self._draw(clients, is_free)

    def _draw(self, clients: Sequence[int], is_free: Callable[[int], bool]) -> int | None:
        """Draw one of the clients that are free, each as likely; None where none is."""
        draw = random.Random(derive_seed(self.seed, "asynchronous", self.time.clock.drawn))
        self.time.clock.drawn += 1
        for _ in range(TRIES if clients else 0):
            if is_free(client := clients[draw.randrange(len(clients))]):
                return client
        free = [client for client in clients if is_free(client)]
        return draw.choice(free) if free else None
