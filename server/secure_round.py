"""One round under secure aggregation, as it goes on: who takes part, who has gone, and what has come."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.opened_sums import OpenedSum
from server.requests import Wave
from strategies.secure.keys import KEY
from strategies.secure.masked_reply import Layout
from strategies.secure.modular import Limbs, add
from strategies.secure.session import Session, threshold_of
from strategies.wire.reply import NodeReply
from strategies.wire.request import RoundInfo

NOT_IN_IT = "round {} was done before without it, and secure aggregation opens no other sum of it"
"""Why a client may not take part."""


class StoppedError(Exception):
    """Why a round's sum cannot be opened."""


@dataclass
class SecureRound:
    """One round's session."""

    wave: Wave
    info: RoundInfo
    seconds: float
    """That the clients have, from when the nodes have dealt their shares: one that hangs costs them none."""
    hosted: dict[int, list[int]]
    """Node -> the clients that it is asked for."""
    session: Session
    places: dict[int, int]
    """Node -> its place."""
    starts: dict[int, str]
    """Node -> which start of it takes part."""
    before: OpenedSum | None = None
    """The sum that was opened where this round was done before."""
    aside: list[NodeReply] = field(default_factory=list)
    """Of clients that may not be in that sum."""
    parts: dict[int, NodeReply] = field(default_factory=dict)
    """Node -> what it has replied, or why it drops out."""
    vectors: dict[Layout, Limbs] = field(default_factory=dict)
    """Sums of masked vectors."""
    layouts: dict[int, Layout] = field(default_factory=dict)
    """Node -> the layout of its vector."""

    @staticmethod
    def begin(
        wave: Wave,
        info: RoundInfo,
        seconds: float,
        hosted: Mapping[int, list[int]],
        partitions: Mapping[int, int],
        starts: Mapping[int, str],
        share: float,
        before: OpenedSum | None = None,
    ) -> "SecureRound":
        """Return a round of the nodes that host clients of it, in the order of their partition-ids.

        Clients that were not in the sum that was opened `before` have failed.
        """
        aside = []
        if before is not None:
            wanted = {node: before.clients.get(partitions[node], ()) for node in hosted}
            aside = [
                NodeReply.of_failed_node(others, NOT_IN_IT.format(info.server_round)).on_node(node)
                for node, clients in hosted.items()
                if (others := [client for client in clients if client not in wanted[node]])
            ]
            hosted = {
                node: again
                for node, clients in hosted.items()
                if (again := [client for client in clients if client in wanted[node]])
            }
        nodes = sorted(hosted, key=lambda node: partitions[node])
        name, numbers = secrets.token_bytes(KEY), tuple(partitions[node] for node in nodes)
        return SecureRound(
            wave,
            info,
            seconds,
            {node: hosted[node] for node in nodes},
            Session(name, numbers, before.threshold if before else threshold_of(share, len(nodes))),
            {node: place for place, node in enumerate(nodes, start=1)},
            dict(starts),
            before,
            aside,
        )

    @property
    def staying(self) -> list[int]:
        """The nodes that have not dropped out, before they train."""
        return [node for node in self.hosted if node not in self.parts]

    def number(self, node: int) -> int:
        """Return a node's partition-id."""
        return self.session.numbers[self.places[node] - 1]

    def drop(self, node: int, why: str) -> None:
        """Note why a node's clients have failed."""
        self.parts[node] = NodeReply.of_failed_node(self.hosted[node], why).on_node(node)

    def stop(self, why: str) -> None:
        """Note that all clients have failed that had not."""
        for node in self.hosted:
            if node not in self.parts or self.parts[node].replies:
                self.drop(node, why)

    def expect(self, nodes: Sequence[int], done: str) -> None:
        """Raise StoppedError where too few nodes have done something."""
        if len(nodes) < self.session.threshold:
            failures = (failure for part in self.parts.values() for failure in part.failures)
            first = next((f"client {each.client}: {each.error}" for each in failures), "")
            raise StoppedError(
                f"{len(nodes)} of {len(self.hosted)} nodes have {done}, and secure aggregation takes "
                f"{self.session.threshold} (secure-threshold): nothing was opened; {first}"
            )

    def expect_as_before(self, clients: Mapping[int, Sequence[int]]) -> None:
        """Raise StoppedError where the sum of these nodes' clients was not the one that was opened before."""
        if self.before is None:
            return
        now = {self.number(node): tuple(hosted) for node, hosted in clients.items()}
        wanted = {number: tuple(hosted) for number, hosted in self.before.clients.items()}
        if now != wanted:
            missing = [
                each
                for number, hosted in wanted.items()
                for each in hosted
                if each not in now.get(number, ())
            ]
            raise StoppedError(
                f"the sum of round {self.info.server_round} was opened before, and clients {missing}, which "
                "were in it, cannot be had now: no other sum may be opened"
            )

    def add(self, node: int, layout: Layout, vector: Limbs) -> None:
        """Add a node's masked vector to those of its layout."""
        self.layouts[node] = layout
        if layout in self.vectors:
            add(self.vectors[layout], vector)
        else:
            self.vectors[layout] = vector.copy()

    def settle(self) -> tuple[Layout, list[int]]:
        """Return the layout that most vectors have, and whose these are; the others drop out."""
        layouts = list(self.layouts.values())
        usual = max(self.vectors, key=layouts.count, default=None)
        for node in [node for node, layout in self.layouts.items() if layout != usual]:
            self.drop(node, "its node masks other arrays or metrics than most nodes")
        alive = [node for node, layout in self.layouts.items() if layout == usual]
        self.expect(alive, "sent their vectors")
        assert usual is not None  # as the threshold is 2 at least
        return usual, alive
