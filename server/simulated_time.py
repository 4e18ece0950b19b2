"""Which clients begin and which arrive in a round, where the time that clients take is simulated.

Asynchronous rounds are those of FedBuff (Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous
Aggregation", arXiv:2106.06639, algorithm 1): a number of clients train at any time, each on the model that
was the newest as it began, and the server makes a new model of every `buffer-size` updates that arrive.
"""

import heapq
import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from models.core.seeds import derive_seed
from server.client_profiles import Profiles
from server.errors import RunFailedError

TRIES = 64
"""Draws after which all clients are looked at: where 1 in 7 is free, so many miss once in twenty thousand."""


@dataclass(frozen=True)
class InFlight:
    """A client that trains."""

    client: int
    server_round: int
    """The round that it began in."""
    end: float
    """When it will be done."""


@dataclass
class Clock:
    """What simulated time has come to; checkpoints carry it as JSON."""

    now: float = 0.0
    """Simulated seconds since the run began."""
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


class Schedule:
    """Who trains when, in simulated time."""

    def __init__(self, profiles: Profiles, seed: int, cohort: int, clock: Clock | None = None) -> None:
        """Take how many clients train at a time, and where the clock stands."""
        self.profiles, self.seed, self.cohort = profiles, seed, cohort
        self.clock = clock or Clock()

    def present(self, clients: Sequence[int]) -> Sequence[int]:
        """Return the clients that are there; where too few are for a cohort, time passes until they are.

        Raises RunFailedError where that never comes.
        """
        profiles, clock = self.profiles, self.clock
        if profiles.spans_of is None or len(clients) < self.cohort:
            return clients
        stays = sorted((*stay, client) for client in clients for stay in profiles.stays(client, clock.now))
        ends, most = list[float](), 0  # when those that are there go, the first of them at the front
        for now, end, _ in stays:
            while ends and ends[0] <= now:
                heapq.heappop(ends)
            heapq.heappush(ends, end)
            most = max(most, len(ends))
            if len(ends) >= self.cohort:
                clock.now = now
                return sorted({client for begin, end, client in stays if begin <= now < end})
        raise RunFailedError(
            f"at most {most} clients are there at a time, and {self.cohort} are to train: lower "
            "clients-per-round, or raise share in availability"
        )

    def wait_for(self, clients: Collection[int]) -> None:
        """Let time pass until all of these, which begin now, have trained."""
        now = self.clock.now
        self.clock.now = max((self.profiles.end_of(client, now) for client in clients), default=now)

    def asynchronous(self, server_round: int, clients: Sequence[int], buffer_size: int) -> Turn:
        """Let time pass until `buffer_size` updates have arrived; a place that gets free is taken at once.

        A client trains on a model once, so a place stays free where all others have trained on it.
        """
        clock = self.clock
        begun: list[int] = []
        arrived: list[InFlight] = []
        self._fill(server_round, clients, begun)
        while len(arrived) < buffer_size:
            if not clock.in_flight:
                if begun and set(begun) >= set(clients):
                    break  # all have trained on this model
                self._pass_until_somebody_comes(set(clients) - set(begun))
            else:
                first = min(clock.in_flight, key=lambda each: (each.end, each.client))
                if self._comes_before(first.end, clients, begun):
                    self._fill(server_round, clients, begun)
                    continue
                clock.in_flight.remove(first)
                clock.now = max(clock.now, first.end)
                arrived.append(first)
            if len(arrived) < buffer_size:
                self._fill(server_round, clients, begun)
        return Turn(server_round, begun, arrived)

    def forget(self, clients: Collection[int], server_round: int) -> None:
        """Let the places of clients that began in this round, and have failed, be free."""
        clock = self.clock
        clock.in_flight = [
            each
            for each in clock.in_flight
            if each.server_round != server_round or each.client not in clients
        ]

    def _comes_before(self, end: float, clients: Sequence[int], begun: Collection[int]) -> bool:
        """Where a place is free, let time pass until a client comes that can take it, if before `end`."""
        clock, profiles = self.clock, self.profiles
        if profiles.spans_of is None or len(clock.in_flight) >= self.cohort:
            return False
        busy = {each.client for each in clock.in_flight} | set(begun)
        comes = min(
            (profiles.next_arrival(client, clock.now) for client in clients if client not in busy),
            default=math.inf,
        )
        if comes >= end:
            return False
        clock.now = comes
        return True

    def _fill(self, server_round: int, clients: Sequence[int], begun: list[int]) -> None:
        """Let clients begin until as many train as may."""
        clock = self.clock
        busy = {each.client for each in clock.in_flight} | set(begun)

        def is_free(client: int) -> bool:
            return client not in busy and self.profiles.is_there(client, clock.now)

        while len(clock.in_flight) < self.cohort:
            client = self._draw(clients, is_free)
            if client is None:
                return
            begun.append(client)
            busy.add(client)
            end = self.profiles.end_of(client, clock.now)
            clock.in_flight.append(InFlight(client, server_round, end))

    def _draw(self, clients: Sequence[int], is_free: Callable[[int], bool]) -> int | None:
        """Draw one of the clients that are free, each as likely; None where none is."""
        draw = random.Random(derive_seed(self.seed, "asynchronous", self.clock.drawn))
        self.clock.drawn += 1
        for _ in range(TRIES if clients else 0):
            if is_free(client := clients[draw.randrange(len(clients))]):
                return client
        free = [client for client in clients if is_free(client)]
        return draw.choice(free) if free else None

    def _pass_until_somebody_comes(self, clients: Collection[int]) -> None:
        clock = self.clock
        clock.now = min(self.profiles.next_arrival(client, clock.now) for client in clients)
        if not math.isfinite(clock.now):
            raise RunFailedError("no client is ever there: availability leaves out all of them")
