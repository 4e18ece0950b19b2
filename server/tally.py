"""Adds up what clients reply as it comes, so that the server holds one sum however many of them there are."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from strategies.wire.exact_sum import ExactSum
from strategies.wire.reply import ClientFailure, ClientReply, NodeReply
from strategies.wire.reply_metrics import add_update

Layout = frozenset[str]
"""Names of the arrays that a client replies."""


@dataclass
class Sums:
    """Sums of what clients reply under one layout."""

    total: ExactSum = field(default_factory=ExactSum)
    statistics: ExactSum = field(default_factory=ExactSum)

    def merge(self, other: "Sums") -> None:
        """Add others to these."""
        self.total.merge(other.total)
        self.statistics.merge(other.statistics)


@dataclass
class NodeTally:
    """Adds up what the clients of one node reply each by itself, and keeps what else they reply.

    It is added to the others' once the whole node's reply is known to be fine.
    """

    weighted_by: str
    times: Callable[[int], int]
    """Says how often a client counts."""
    sums: dict[Layout, Sums] = field(default_factory=dict)
    layouts: dict[int, Layout] = field(default_factory=dict)
    """Of the clients."""

    def take(self, reply: ClientReply) -> ClientReply:
        """Add a client's arrays, and return its reply without them."""
        layout = layout_of(reply)
        total = self.sums.setdefault(layout, Sums()).total
        for _ in range(self.times(reply.client)):  # not once with a larger weight, which would be rounded
            add_update(total, reply.content, self.weighted_by)
        self.layouts[reply.client] = layout
        return ClientReply.made(reply.client, {**reply.metrics}, {})


@dataclass
class Tally:
    """What the clients of a cohort reply together, by layout until all of them have replied."""

    sums: dict[Layout, Sums] = field(default_factory=dict)
    layouts: dict[int, Layout] = field(default_factory=dict)
    """Of the clients that have replied."""

    def take(self, part: NodeReply, own: NodeTally) -> NodeReply:
        """Add what a node replied, and return its reply without sums; `own` is of clients by themselves.

        Of a node whose reply cannot be used nothing is added, though some was taken before that was known.
        """
        if not part.replies:
            return replace(part, total=None)
        summed, layouts = own.sums, own.layouts
        if part.total is not None:
            layout = frozenset(part.total.shapes)
            summed, layouts = {layout: Sums(part.total)}, {each.client: layout for each in part.replies}
        # Statistics that clients of several layouts share cannot be told apart: all of them will have failed.
        if part.statistics is None or len(summed) == 1:
            for layout, sums in summed.items():
                sums.statistics = part.statistics or ExactSum()
                self.sums.setdefault(layout, Sums()).merge(sums)
        self.layouts |= layouts
        return replace(part, total=None)

    def settle(self, parts: Sequence[NodeReply]) -> tuple[list[NodeReply], Sums]:
        """Return the replies, in which clients of unusual layouts have failed, and the others' sums."""
        by_part = [[self.layouts[each.client] for each in part.replies] for part in parts]
        usual = usual_of([layout for layouts in by_part for layout in layouts])
        settled = []
        for part, layouts in zip(parts, by_part, strict=True):
            left = replace(part, statistics=None)
            settled.append(fail_others(left, layouts, usual, whole=part.statistics is not None))
        return settled, self.sums.get(usual, Sums())


def layout_of(reply: ClientReply) -> Layout:
    """Return the names of a client's arrays."""
    (arrays,) = reply.content.array_records.values()
    return frozenset(arrays)


def usual_of(layouts: Sequence[Layout]) -> Layout:
    """Return the layout that most clients have."""
    return Counter(layouts).most_common(1)[0][0] if layouts else frozenset()


def fail_others(
    part: NodeReply, layouts: Sequence[Layout], usual: Collection[str], *, whole: bool
) -> NodeReply:
    """Return the reply, in which clients of other layouts have failed, or all of a `whole`."""
    fine = [layout == usual for layout in layouts]
    if all(fine):
        return part
    why = f"its reply has other arrays than those of most clients, which reply {', '.join(sorted(usual))}"
    failed = [each.client for each, good in zip(part.replies, fine, strict=True) if whole or not good]
    return replace(
        part,
        replies=[each for each in part.replies if each.client not in failed],
        failures=[*part.failures, *(ClientFailure(client, why) for client in failed)],
        states={client: state for client, state in part.states.items() if client not in failed},
    )
