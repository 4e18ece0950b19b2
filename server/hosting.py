"""Which clients live on which node: those that its number says, or those that it lists."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from strategies.wire.node import NodeDescription


@dataclass
class Hosting:
    """Where clients live. A node is called by its place, which is its partition-id as a rule."""

    num_clients: int
    listed: dict[int, int] = field(default_factory=dict)
    """Client -> the node that has listed it last, as one does that has data of its own for each client."""
    listing: frozenset[int] = frozenset()
    """The nodes that list their clients, and host no others."""

    def clients_of(self, said: NodeDescription) -> Sequence[int]:
        """Return the clients of a node."""
        return said.clients or range(said.partition_id, self.num_clients, said.num_partitions)

    def home_of(self, client: int, num_partitions: int) -> int | None:
        """Return the node of a client; None for one that no node hosts."""
        if client in self.listed:
            return self.listed[client]
        home = client % num_partitions
        return None if home in self.listing else home

    def take_in(self, said: NodeDescription, node: int) -> None:
        """Note what a node lists that is called so, instead of what it has listed before."""
        self.listed = {client: home for client, home in self.listed.items() if home != node}
        self.listed |= dict.fromkeys(said.clients, node)
        self.listing = frozenset(self.listed.values())

    def shared(self, said: NodeDescription, other: NodeDescription) -> int | None:
        """Return a client of two nodes, one of which lists its clients; None where each has its own."""
        if not (said.clients or other.clients):
            return None
        if said.clients and other.clients:
            return min({*said.clients} & {*other.clients}, default=None)
        of_number = self.clients_of(other if said.clients else said)
        return min((each for each in said.clients or other.clients if each in of_number), default=None)
