"""Which clients live on which node, learned by asking the nodes, which come and go."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from logging import INFO, WARNING
from typing import Literal

from flwr.serverapp import Grid

from models.core.log import log
from models.core.tracebacks import line_of, plain_line, shortened
from models.data.labels import Labels
from server.errors import RunFailedError
from server.first_nodes import wait_for_nodes
from server.hosting import Hosting
from server.node_clients import NodeClients, clients_of
from server.node_fit import misfit
from server.node_questions import NodeQuestions
from server.node_refusal import Refusal, Refusals
from server.sightings import Sighting, Sightings
from strategies.wire.node import DataDescription, NodeDescription, NodeError
from strategies.wire.vocabulary import Vocabulary

SHOWN = 10
"""Clients that a line of the log lists."""


@dataclass(frozen=True)
class Claim:
    """A node that fits, and says which clients it hosts."""

    sighting: Sighting
    said: NodeDescription
    since: float
    """When it said so, on the monotonic clock."""
    moved_to: int | None = None
    """Its place, where it lists its clients and another node has the place of its partition-id."""

    @property
    def partition(self) -> int:
        """Its partition-id, which is only a name where it lists its clients."""
        return self.said.partition_id

    @property
    def place(self) -> int:
        """What its clients' home is called: its partition-id, unless it was moved."""
        return self.partition if self.moved_to is None else self.moved_to

    @property
    def own_name(self) -> object:
        """What no other node is called: of those that list their clients, together with the key."""
        return (self.partition, self.sighting.public_key) if self.said.clients else self.partition


@dataclass
class NodeRegistry:
    """The nodes that take part, those that cannot, and how the clients are spread over the former.

    A node has its clients from when it is accepted until it has gone. Another one that claims them is refused
    as soon as the first has shown that it lives, and takes its place where that one has gone.
    """

    num_clients: int
    data: str
    """Hash of the server's data, which every node must have that does not bring its own."""
    state: tuple[str, ...]
    """Entries of the server's model, and what else every node must have alike."""
    interchangeable: bool
    """Whether every node can host every client, as simulated ones can that share a disk."""
    examples: DataDescription | None = None
    """What the server's data is like; None where nobody has said."""
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    """What nodes are told to read their own data with; no labels is that they have them alike."""
    open_labels: Labels | None = None
    """How labels of nodes that have their own data become one list; None = they must be the server's."""
    unfit: Literal["refuse", "stop"] = "refuse"
    """Whether a node that cannot take part ends a run that has not begun."""
    expected: int = 0
    """How many nodes there are; 0 = as the first ones say."""
    node_timeout: float = 300.0
    """Seconds that nodes are waited for that are away; refused ones are asked again after as long."""
    silence: float = math.inf
    """Seconds without a heartbeat after which a node counts as gone."""
    may_host: NodeClients = field(default_factory=NodeClients)
    """Which clients a node's key may host, as the SuperLink's owner says."""
    refusals: Refusals = field(default_factory=Refusals)
    accepted: dict[int, Claim] = field(default_factory=dict)
    """Node -> what it said, of those that take part and are there."""
    num_partitions: int = 0
    begun: bool = False
    """Whether the first nodes have been waited for."""
    machines: set[str] = field(default_factory=set)
    """What the nodes that were ever accepted compute with, a line for each kind of them."""
    own_data: bool = False
    """Whether a node brought data of its own, which the server does not see."""

    def __post_init__(self) -> None:
        self.num_partitions = self.expected
        self._sightings = Sightings(self.interchangeable, self.silence)
        self._questions = NodeQuestions(self.vocabulary)
        self._awaited: frozenset[int] | None = None
        self._claims: list[Claim] = []
        """Of nodes that are not accepted yet, in the order of their answers."""
        self._away_since: dict[int, float] = {}
        """Partition-id -> when its node was first missed."""
        self._hosting = Hosting(self.num_clients)
        self._described = 0
        """Characters that nodes have said of themselves, and nobody has taken down."""
        self._ever: set[int] = set()
        """Partition-ids of nodes that were ever accepted."""

    @property
    def vocabulary_of_requests(self) -> Vocabulary:
        """What is said with every request; nodes without data of their own know the tokens."""
        return self.vocabulary if self.own_data else Vocabulary(self.vocabulary.labels)

    @property
    def awaited(self) -> list[int]:
        """The partition-ids that a start of the run waits for: they are missing and were not refused."""
        refused = self.refusals.places(self.num_partitions)
        wanted = range(self.num_partitions) if self._awaited is None else self._awaited
        return [each for each in self.missing if each in wanted and each not in refused]

    @property
    def partitions(self) -> dict[int, int]:
        """Node -> its place, the partition-id as a rule, of those that take part and are there."""
        return {node: claim.place for node, claim in self.accepted.items()}

    @property
    def missing(self) -> list[int]:
        """The partition-ids whose nodes are not there."""
        there = set(self.partitions.values())
        return [partition for partition in range(self.num_partitions) if partition not in there]

    @property
    def unanswered(self) -> list[str]:
        """The nodes that have connected and have not said who they are."""
        return sorted(each.sighting.called for each in self._questions.open.values())

    def wait_for_all(self, grid: Grid, timeout: float, min_clients: int = 0) -> None:
        """Wait until all nodes have answered, or were refused; see `wait_for_nodes`."""
        wait_for_nodes(self, grid, timeout, min_clients)

    def update(self, grid: Grid, timeout: float = math.inf) -> None:
        """Look who is there, ask newcomers who they are, and take in what has been answered; wait for nobody.

        A node that comes back may do so under another id, or with other code: it is asked again. Only nodes
        of polyfed's own runtimes, which answer at once, are given time, `timeout` seconds.
        """
        seen = self._sightings.look(grid)
        self._forget(seen)
        known = self.accepted.keys() | self.refusals.now.keys() | self._questions.nodes
        known |= {claim.sighting.node for claim in self._claims}
        newcomers = [each for node, each in seen.items() if node not in known]
        for sighting, said in self._questions.ask(grid, newcomers, timeout):
            self._described += said.size
            if isinstance(said, NodeError):
                self._refuse(sighting, str(said), said.whole, said.place)
            elif why := self._misfit(sighting, said):
                place = said.partition_id, said.num_partitions
                self._refuse(sighting, why, said.model_dump_json(), place, clients=said.clients)
            else:
                self._claims.append(Claim(sighting, said, time.monotonic()))
        if not self.num_partitions:
            self.choose(complete=True)
        self._settle()
        self._questions.tell_slow(self.node_timeout)
        now, missing = time.monotonic(), self.missing
        self._away_since = {each: self._away_since.get(each, now) for each in missing}

    def update_if_due(self, grid: Grid) -> None:
        """Do the same, at most once a second."""
        if self._sightings.is_due():
            self.update(grid)

    def choose(self, *, complete: bool) -> None:
        """Choose how many nodes there are: what the most of them say; if `complete`, if they are all there.

        So it does not matter whether a node of another federation answers first, such as one of 0 of 1, which
        is complete by itself: those that are still being asked could be more than those that have answered.
        """
        places: dict[int, set[object]] = {}
        for claim in self._claims:
            places.setdefault(claim.said.num_partitions, set()).add(claim.own_name)
        for of, found in places.items():
            found.update(self.refusals.places(of))
        if not places:
            return
        most = max(places, key=lambda of: (len(places[of]), of))
        if complete and not len(self._questions.open) < len(places[most]) >= most:
            return
        self.num_partitions = most
        self._settle()

    def begin(self, waited: float) -> None:
        """Have done with waiting for the first nodes: those that are missing have had so many seconds."""
        self.begun = True
        self._away_since = dict.fromkeys(self.missing, time.monotonic() - waited)

    def take_described(self) -> int:
        """Return how many characters nodes have said of themselves since this was asked last."""
        said, self._described = self._described, 0
        return said

    def leave_out(self, node: int, why: str) -> None:
        """Leave a node out that was accepted, before round 1; or end the run, as its user wants it."""
        claim = self.accepted.pop(node)
        self._refuse_claim(claim, why, first=True)

    def close_labels(self) -> None:
        """Take no other labels than the server's from now on; a node that has fewer of them is told all."""
        told = self.open_labels and self.examples and self.open_labels.fit(self.examples.classes)
        if told and self.examples and (self.own_data or not self.interchangeable):
            self._questions.vocabulary = replace(self.vocabulary, labels=self.examples.classes)
            if self.own_data:  # else with requests from when one comes that needs them
                self.vocabulary = self._questions.vocabulary
        self.open_labels = None

    def ask_anew(
        self, vocabulary: Vocabulary, data: str, state: tuple[str, ...], examples: DataDescription
    ) -> None:
        """Ask the nodes again, and tell them other labels; the rest is what all must have from now on.

        Those that were not there are not waited for once more.
        """
        self.vocabulary, self.data, self.state, self.examples = vocabulary, data, state, examples
        self.open_labels, self.begun = None, False
        self._awaited = frozenset(self.partitions.values())
        self._questions, self._claims = NodeQuestions(self.vocabulary), []
        self.accepted.clear()

    def start_of(self, node: int) -> str:
        """Return which start of a node it is that takes part."""
        return self.accepted[node].sighting.start

    def has_gone(self, node: int, start: str) -> bool:
        """Return whether a node has gone, or was started anew, and so has lost what it was sent before."""
        return node not in self.accepted or self.start_of(node) != start

    def hosts(self) -> tuple[int, ...]:
        """Return the clients, in order, whose nodes are there."""
        hosted = set(self.partitions.values())
        if not hosted:
            return ()
        if not self._hosting.listed and (len(hosted) == self.num_partitions or self.interchangeable):
            return self.all_clients
        home_of, of = self._hosting.home_of, self.num_partitions
        return tuple(client for client in self.all_clients if home_of(client, of) in hosted)

    @cached_property
    def all_clients(self) -> tuple[int, ...]:
        """All clients, whether or not their nodes are there."""
        # Once: a strategy asks twice a round, and a million numbers take longer to make than to copy.
        return tuple(range(self.num_clients))

    def assign(self, clients: Iterable[int], node_ids: Iterable[int]) -> dict[int, list[int]]:
        """Return node -> its clients, for the clients of one round that these nodes host."""
        partitions = self.partitions
        by_partition = {partitions[node_id]: node_id for node_id in node_ids if node_id in partitions}
        nodes = [by_partition[partition] for partition in sorted(by_partition)]
        assigned: dict[int, list[int]] = {}
        for place, client in enumerate(sorted(clients)):
            # Nodes that can do any client's work get the same number of them each.
            if self.interchangeable and not self.own_data:
                node = nodes[place % len(nodes)] if nodes else None
            else:
                home = self._hosting.home_of(client, self.num_partitions)
                node = None if home is None else by_partition.get(home)
            if node is not None:
                assigned.setdefault(node, []).append(client)
        return assigned

    def waited_enough(self) -> bool:
        """Return whether all nodes that are away have been so for node-timeout, or cannot take part."""
        refused = self.refusals.places(self.num_partitions)
        latest = max((since for each, since in self._away_since.items() if each not in refused), default=-1e9)
        return time.monotonic() - latest >= self.node_timeout

    def why_away(self, client: int) -> str:
        """Return why a client's node is not there."""
        place = self._hosting.home_of(client, self.num_partitions) if self.num_partitions else 0
        if place is None:
            return "no node says that it lives there"
        if why := self.refusals.places(self.num_partitions).get(place):
            return f"its node cannot take part: {why}"
        return "its node has gone" if place in self._ever else "its node has not connected"

    def _forget(self, seen: Mapping[int, Sighting]) -> None:
        """Forget the nodes that have gone or were started anew."""
        for node, claim in list(self.accepted.items()):
            if seen.get(node) == claim.sighting:
                continue
            del self.accepted[node]
            how = "was started anew" if node in seen else self._sightings.how_it_went(node)
            log(WARNING, "%s, which hosts %s, %s", claim.sighting.called, self._named(claim), how)
            self.refusals.welcome(self._place(claim))
        self._claims = [each for each in self._claims if seen.get(each.sighting.node) == each.sighting]
        self._questions.forget_all_but(seen)
        # What kept a node away may be mended without its being started anew.
        asked_again = time.monotonic() - self.node_timeout
        self.refusals.drop(
            lambda each: seen.get(each.sighting.node) == each.sighting and each.since > asked_again
        )

    def _settle(self) -> None:
        """Accept the nodes that fit; refuse those whose places others have that live."""
        namesakes: dict[int, list[Claim]] = {}
        for claim in self.accepted.values():
            namesakes.setdefault(claim.partition, []).append(claim)
        waiting = []
        for claim in self._claims if self.num_partitions else ():
            if claim.said.num_partitions != self.num_partitions:
                others = "expected-nodes is" if self.expected else "the others say"
                why = f"it says num-partitions={claim.said.num_partitions}, {others} {self.num_partitions}"
                self._refuse_claim(claim, why, claim.said.model_dump_json())
            elif not (holder := self._holder(claim, namesakes.get(claim.partition, ()))):
                if why := self._claimed_twice(claim):
                    self._refuse_claim(claim, why)
                else:
                    self._accept(claim)
                    namesakes.setdefault(claim.partition, []).append(claim)
            elif self._sightings.lives_since(holder.sighting.node, claim.since):
                called = holder.sighting.called
                why = f"its clients are those of {called}, which is there: give each its own partition-id"
                self._refuse_claim(claim, why, rival=True)
            else:
                waiting.append(claim)
        if self.num_partitions:
            self._claims = waiting

    def _holder(self, claim: Claim, namesakes: Iterable[Claim]) -> Claim | None:
        """Return the one of those that take part that a node may be, started anew; None where there is none.

        Nodes with different keys and clients are two nodes, if one of them lists its clients: whatever
        partition-id it says, it keeps nobody out.
        """
        for other in namesakes:
            same_key = claim.sighting.public_key == other.sighting.public_key
            listing = claim.said.clients or other.said.clients
            if same_key or not listing or self._hosting.shared(claim.said, other.said) is not None:
                return other
        return None

    def _placed(self, claim: Claim) -> Claim:
        """Return a node with its place, from which one that lists its clients makes way, for any other."""
        if self.interchangeable:
            return claim
        there = next((each for each, place in self.partitions.items() if place == claim.partition), None)
        if there is None:
            return claim
        beyond = max(self.num_partitions, *self.partitions.values()) + 1
        free = [*self.awaited, *self.missing, beyond][0]
        if claim.said.clients:
            return replace(claim, moved_to=free)
        moved = self.accepted[there] = replace(self.accepted[there], moved_to=free)
        self._hosting.take_in(moved.said, free)
        self._ever.add(free)
        return claim

    def _claimed_twice(self, claim: Claim) -> str:
        """Return why a node cannot take part which lists a client of another node; "" where it does not."""
        for other in self.accepted.values():
            client = self._hosting.shared(claim.said, other.said)
            if client is not None:
                return f"its client {client} is that of {other.sighting.called}, which is there"
        return ""

    def _accept(self, claim: Claim) -> None:
        claim = self._placed(claim)
        self.accepted[claim.sighting.node] = claim
        self._hosting.take_in(claim.said, claim.place)
        self._ever.add(claim.place)
        if claim.said.own_data:
            self.own_data, self.vocabulary = True, self._questions.vocabulary
        self.machines.add(plain_line(claim.said.machine))
        if self.begun:
            log(INFO, "%s takes part with %s", claim.sighting.called, self._named(claim))
        told_before = self._awaited is not None and not self.begun
        if claim.said.own_data and claim.said.examples and not told_before:
            examples = claim.said.examples.num_examples
            log(
                INFO,
                "%s, %s: %d examples of its own",
                claim.sighting.called,
                self._named(claim),
                examples,
            )

    def _not_its_own(self, sighting: Sighting, clients: Sequence[int]) -> str:
        """Return why a node may not host the clients that it claims; "" where it may."""
        return "" if self.interchangeable else self.may_host.why_not(sighting.public_key, clients)

    def _misfit(self, sighting: Sighting, said: NodeDescription) -> str:
        """Return why a node cannot take part; "" for one that can."""
        try:
            clients = said.clients or clients_of((said.partition_id, said.num_partitions), self.num_clients)
            return self._not_its_own(sighting, clients) or misfit(said, self)
        except Exception as error:  # a node may say anything
            return f"what it says of itself cannot be read: {line_of(error)}"

    def _refuse(
        self,
        sighting: Sighting,
        why: str,
        whole: str,
        place: tuple[int, int] | None,
        *,
        clients: Sequence[int] = (),
        rival: bool = False,
        first: bool = False,
    ) -> None:
        """Leave a node out, which may list its clients, or end the run, as its user wants it.

        `first` is one of those that were waited for before round 1. Simulated nodes are all alike, so that
        there is none to go on with.
        """
        # One that may not host the clients that it claims does not speak for the node that has its number.
        clients = clients or clients_of(place, self.num_clients)
        rival = rival or bool(self._not_its_own(sighting, clients))
        why, whole = plain_line(why), shortened(whole)  # the node's own words may be among them
        refusal = Refusal(sighting, why, whole, place, time.monotonic(), rival)
        if self.interchangeable or (self.unfit == "stop" and (first or not self.begun)):
            error = RunFailedError(
                f"a node cannot take part: {why}" if self.interchangeable else refusal.line
            )
            error.add_note(f"{sighting.called} said:\n{whole}")  # for errors.log
            raise error
        self.refusals.add(refusal)

    def _refuse_claim(self, claim: Claim, why: str, whole: str = "", **how: bool) -> None:
        """Refuse a node that would fit by itself, as `_refuse` does."""
        place = self._place(claim)
        self._refuse(claim.sighting, why, whole or why, place, clients=claim.said.clients, **how)

    def _named(self, claim: Claim) -> str:
        clients = self._hosting.clients_of(claim.said)
        shown = ", ".join(map(str, clients[:SHOWN]))
        more = f" and {len(clients) - SHOWN} more" if len(clients) > SHOWN else ""
        return f"client{'s' * (len(clients) > 1)} {shown}{more}"

    def _place(self, claim: Claim) -> tuple[int, int]:
        return claim.partition, claim.said.num_partitions
