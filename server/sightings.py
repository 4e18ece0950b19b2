"""Which nodes are there: those that the SuperLink lists, and that have lately given a sign of life.

The SuperLink lists a node that was killed for up to a minute, and a node's own heartbeats come every 18 to 23
seconds. So a node that has missed one is known to be gone sooner.
"""

import math
import time
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from models.core.tracebacks import plain_line

PAUSE = 1.0
"""Seconds between two looks, at least, while a round is waited for."""


@dataclass(frozen=True)
class Sighting:
    """A node that is there."""

    node: int
    start: str = ""
    """When it was last started, as the SuperLink says it; "" where nobody does."""
    name: str = ""
    """What it was registered as; "" where it was not."""
    public_key: bytes = b""
    """The key by which the SuperLink knows it; b"" where it does not."""

    @property
    def called(self) -> str:
        """How it is called to people."""
        return f"node {self.node} ({self.name})" if self.name else f"node {self.node}"


@dataclass
class Sightings:
    """Looks which nodes are there."""

    simulated: bool
    """Whether nodes are this machine's own workers, which have no heart to beat."""
    silence: float = math.inf
    """Seconds without a heartbeat after which a node counts as gone."""
    beats: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Node -> until when the SuperLink believes in it, and when that was first seen on the clock here.

    Two machines' clocks are never compared: what counts is that the first of these goes on."""
    looked: float = -math.inf

    def look(self, grid: Grid) -> dict[int, Sighting]:
        """Return the nodes that are there."""
        self.looked = time.monotonic()
        if self.simulated:
            return {node: Sighting(node) for node in grid.get_node_ids()}
        listed = list(grid.get_nodes())
        beats = {}
        for each in listed:
            until, _ = before = self.beats.get(each.node_id, (-1.0, 0.0))
            beats[each.node_id] = before if until == each.online_until else (each.online_until, self.looked)
        self.beats = beats
        return {
            each.node_id: Sighting(
                each.node_id, each.last_activated_at, plain_line(each.name), each.public_key
            )
            for each in listed
            if not self.is_silent(each.node_id)
        }

    def is_due(self) -> bool:
        """Return whether it is time to look again."""
        return time.monotonic() - self.looked >= PAUSE

    def is_silent(self, node: int) -> bool:
        """Return whether a listed node has given no sign of life for too long."""
        until, since = self.beats[node]
        return until > 0 and self.looked - since > self.silence

    def how_it_went(self, node: int) -> str:
        """Return what is known of a node that has gone."""
        listed = node in self.beats
        return f"has given no sign of life for {self.silence:g} s (node-silence)" if listed else "has gone"

    def lives_since(self, node: int, moment: float) -> bool:
        """Return whether a node has shown after a moment that it lives; always, where nodes give no signs."""
        until, since = self.beats.get(node, (0.0, 0.0))
        return until == 0 or since > moment
