"""A node that cannot take part, and why."""

from collections.abc import Callable
from dataclasses import dataclass, field
from logging import WARNING

from models.core.log import log
from server.run_schema import ERRORS
from server.sightings import Sighting

REMEMBERED = 200
"""Refusals of a run that are kept: strangers could make any number."""
OF_ONE = 10
"""Those of one registered node, so that it does not push out the others'."""


@dataclass(frozen=True)
class Refusal:
    """A node that cannot take part."""

    sighting: Sighting
    reason: str
    """In one line."""
    whole: str
    """All that is known of it, such as its traceback."""
    place: tuple[int, int] | None
    """Its partition-id and its num-partitions; None where they are not known."""
    since: float
    """On the monotonic clock."""
    rival: bool = False
    """Whether it would fit, were its clients not another node's."""

    @property
    def who(self) -> str:
        """How the node is called to people."""
        place = "" if self.place is None else f" with partition-id {self.place[0]}"
        return f"{self.sighting.called}{place}"

    @property
    def line(self) -> str:
        """Who is refused, and why."""
        return f"{self.who} cannot take part: {self.reason}"


@dataclass
class Refusals:
    """The nodes that cannot take part now, and all that a run has refused."""

    record: Callable[[str, str], None] = lambda _, __: None
    """Adds an entry to errors.log: where, and the whole."""
    now: dict[int, Refusal] = field(default_factory=dict)
    """By node."""
    ever: dict[tuple[str, object, str], Refusal] = field(default_factory=dict)
    """Each kind of them once: a node that is started again and again fills no log."""

    full: bool = False
    """Whether there were more than are kept."""
    _cut: set[str] = field(default_factory=set)
    """Names of nodes that had more reasons than are kept."""

    def add(self, refusal: Refusal) -> None:
        """Remember a node that cannot take part, and say so."""
        self.now[refusal.sighting.node] = refusal
        kind = refusal.sighting.name, refusal.place, refusal.reason
        if kind in self.ever or self.full:
            return
        of_one = sum(name == refusal.sighting.name for name, _, _ in self.ever)
        if refusal.sighting.name and of_one >= OF_ONE:
            if refusal.sighting.name not in self._cut:
                self._cut.add(refusal.sighting.name)
                log(WARNING, "%s; further reasons of this node are not listed", refusal.line)
            return
        if len(self.ever) == REMEMBERED:
            self.full = True
            log(WARNING, "%d refusals of nodes are listed; further ones are not", REMEMBERED)
            return
        self.ever[kind] = refusal
        log(WARNING, "%s; it is left out (more in %s)", refusal.line, ERRORS)
        self.record(refusal.who, refusal.whole)

    def drop(self, keep: Callable[[Refusal], bool]) -> None:
        """Forget nodes that have gone, or are to be asked again."""
        self.now = {node: each for node, each in self.now.items() if keep(each)}

    def welcome(self, place: tuple[int, int]) -> None:
        """Forget the nodes that were refused as another had their place, which is free now."""
        self.drop(lambda each: not (each.rival and each.place == place))

    def places(self, num_partitions: int) -> dict[int, str]:
        """Return the partition-ids, of this number of nodes, that cannot take part, and why."""
        return {
            each.place[0]: each.reason
            for each in self.now.values()
            if each.place is not None and each.place[1] == num_partitions and not each.rival
        }
