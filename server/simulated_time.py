"""When simulated clients begin and arrive: at times that follow from the seed, for which nothing waits."""

import heapq
import math
from collections.abc import Callable, Collection, Sequence

from server.client_profiles import Profiles
from server.errors import RunFailedError
from server.turns import Clock, InFlight, Places, Time, Turn


class Schedule(Time):
    """Who trains when, in simulated time."""

    def __init__(self, profiles: Profiles, seed: int, cohort: int, clock: Clock | None = None) -> None:
        """Take how many clients train at a time, and where the clock stands."""
        self.profiles, self.cohort = profiles, cohort
        self.clock = clock or Clock()
        self.places = Places(self, seed, cohort)

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
        """Let time pass until `buffer_size` updates have arrived."""
        return self.places.turn(server_round, clients, buffer_size)

    def is_free(self, client: int) -> bool:
        """Return whether a client is there."""
        return self.profiles.is_there(client, self.clock.now)

    def begin(self, server_round: int, client: int) -> None:
        """Let a client begin."""
        end = self.profiles.end_of(client, self.clock.now)
        self.clock.in_flight.append(InFlight(client, server_round, end))

    def wait(self, waiting: Callable[[], Collection[int]]) -> InFlight | bool:
        """Let time pass until the next client is done, or one comes that can begin, whichever is first."""
        clock, profiles = self.clock, self.profiles
        first = min(clock.in_flight, key=lambda each: (each.end, each.client), default=None)
        if first is None or profiles.spans_of is not None:  # else all who may begin have done so
            absent = waiting()
            comes = min((profiles.next_arrival(client, clock.now) for client in absent), default=math.inf)
            if first is None and not absent:
                return False  # all have trained on this model
            if first is None or comes < first.end:
                if comes == math.inf:
                    raise RunFailedError("no client is ever there: availability leaves out all of them")
                clock.now = comes
                return True
        clock.in_flight.remove(first)
        clock.now = max(clock.now, first.end)
        return first

    def forget(self, clients: Collection[int], server_round: int) -> None:
        """Let the places of clients that began in this round, and have failed, be free."""
        clock = self.clock
        clock.in_flight = [
            each
            for each in clock.in_flight
            if each.server_round != server_round or each.client not in clients
        ]
