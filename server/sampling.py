"""Which clients a strategy may sample from, and how long it waits for more.

A strategy of Flower's waits for ever for as many clients as it wants. It is left to wait while nodes may come
back. Then it gets to see those too that are away, which fail if it asks them.
"""

import math
import time

from server.errors import NodesFailedError
from server.node_registry import NodeRegistry

PATIENCE = 10.0
"""Seconds beyond node-timeout that a strategy may look for clients, of which it then sees all."""


class Sampling:
    """Shows a strategy the clients."""

    def __init__(
        self, registry: NodeRegistry, node_timeout: float, wanted: int = 0, min_clients: int = 1
    ) -> None:
        """`wanted` is how many clients the strategy wants to see; 0 = all."""
        self.registry = registry
        self.node_timeout = node_timeout
        self.wanted = wanted
        self.min_clients = min_clients
        self.deadline = math.inf

    def begin(self) -> None:
        """Give the strategy node-timeout from now to find enough clients."""
        self.deadline = time.monotonic() + self.node_timeout

    def clients(self, strategy: str) -> tuple[int, ...]:
        """Return the clients, in order, whose nodes are there; all, where these have been too few for long.

        Raises NodesFailedError for fewer than there must be, and for a strategy that wants more than all.
        """
        there, everybody = self.registry.hosts(), self.registry.all_clients
        late = time.monotonic() - self.deadline
        if len(there) >= max(self.wanted or len(everybody), self.min_clients) and late < 0:
            return there
        waited = self.registry.waited_enough() or late > 0
        if waited and len(there) < self.min_clients:
            raise self._too_few(there)
        shown = everybody if waited else there
        if late > PATIENCE:
            raise NodesFailedError(
                f"strategy {strategy} has waited for more clients than the {len(shown)} that it sees for "
                f"{self.node_timeout:g} s (node-timeout)"
            )
        return shown

    def _too_few(self, there: tuple[int, ...]) -> NodesFailedError:
        away = min(set(self.registry.all_clients) - set(there))
        return NodesFailedError(
            f"{len(there)} of {self.registry.num_clients} clients are there, and min-clients is "
            f"{self.min_clients}; client {away} has been away for {self.node_timeout:g} s (node-timeout): "
            f"{self.registry.why_away(away)}"
        )
