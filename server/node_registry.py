"""Which clients live on which node, learned by asking the nodes."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from logging import INFO

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from models.core.log import log
from server.errors import RunFailedError
from server.exchange import exchange, one_line
from strategies.wire.node import NodeDescription, NodeError

GONE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)
"""Flower's error codes for a node that can no longer be reached."""


@dataclass
class NodeRegistry:
    """The nodes that have described themselves, and how the clients are spread over them."""

    num_clients: int
    data: str
    """Hash of the server's data, which every node must have that does not bring its own."""
    state: tuple[str, ...]
    """Entries of the server's model, and what else every node must have alike."""
    interchangeable: bool
    """Whether every node can host every client, as simulated ones can that share a disk."""
    partitions: dict[int, int] = field(default_factory=dict)
    """Node -> its partition-id."""
    num_partitions: int = 0
    machines: set[str] = field(default_factory=set)
    """What the nodes that were ever admitted compute with, a line for each kind of them."""
    own_data: bool = False
    """Whether a node brought data of its own, which the server does not see."""

    def wait_for_all(self, grid: Grid, timeout: float) -> None:
        """Ask nodes as they appear until all `num-partitions` of them have answered.

        Raises RunFailedError when that takes longer than `timeout` seconds, or a node does not fit.
        """
        deadline = time.monotonic() + timeout
        said = 0.0
        while True:
            self.refresh(grid, grid.get_node_ids(), timeout=max(deadline - time.monotonic(), 0.1))
            missing = sorted(set(range(self.num_partitions)) - set(self.partitions.values()))
            if self.partitions and not missing:
                return
            if time.monotonic() > deadline:
                who = f"partition-ids {missing} are missing" if self.num_partitions else "none has connected"
                raise RunFailedError(
                    f"not all nodes answered within {timeout:g} s: {who}; raise node-timeout or start them"
                )
            if time.monotonic() - said > 10:
                log(INFO, "Waiting for nodes: %d of %s", len(self.partitions), self.num_partitions or "?")
                said = time.monotonic()
            time.sleep(0.05)

    def refresh(self, grid: Grid, node_ids: Iterable[int], timeout: float) -> None:
        """Forget the nodes that have gone, and ask those of the connected ones that are new.

        A node that comes back may do so under another id, or with other code: it is asked again.
        """
        connected = list(node_ids)
        self.partitions = {node: place for node, place in self.partitions.items() if node in connected}
        new = [node_id for node_id in connected if node_id not in self.partitions]
        if not new:
            return
        queries = [Message(RecordDict(), node_id, "query") for node_id in new]
        for reply in exchange(grid, queries, timeout):
            if reply.has_error():
                if reply.error.code in GONE:
                    continue  # gone before it answered; asked again when it is back
                raise _cannot_take_part(reply, one_line(reply.error.reason), reply.error.reason or "")
            try:
                description = NodeDescription.unpack(reply.content)
            except NodeError as error:
                raise _cannot_take_part(reply, str(error), error.whole) from error
            self._admit(reply.metadata.src_node_id, description)

    def hosts(self, node_ids: Iterable[int]) -> tuple[int, ...]:
        """Return the clients, in order, that the connected nodes host."""
        connected = {self.partitions[node_id] for node_id in node_ids if node_id in self.partitions}
        if len(connected) == self.num_partitions or (self.interchangeable and connected):
            return self._all_clients
        return tuple(client for client in self._all_clients if client % self.num_partitions in connected)

    @cached_property
    def _all_clients(self) -> tuple[int, ...]:
        # Once: a strategy asks twice a round, and a million numbers take longer to make than to copy.
        return tuple(range(self.num_clients))

    def assign(self, clients: Iterable[int], node_ids: Iterable[int]) -> dict[int, list[int]]:
        """Return node -> its clients, for the clients of one round whose nodes are connected."""
        by_partition = {
            self.partitions[node_id]: node_id for node_id in node_ids if node_id in self.partitions
        }
        nodes = [by_partition[partition] for partition in sorted(by_partition)]
        assigned: dict[int, list[int]] = {}
        for place, client in enumerate(sorted(clients)):
            # Nodes that can do any client's work get the same number of them each.
            if self.interchangeable:
                node = nodes[place % len(nodes)] if nodes else None
            else:
                node = by_partition.get(client % self.num_partitions)
            if node is not None:
                assigned.setdefault(node, []).append(client)
        return assigned

    def _admit(self, node_id: int, description: NodeDescription) -> None:
        partition, num_partitions = description.partition_id, description.num_partitions
        who = f"the node with partition-id {partition}"
        if self.num_partitions not in (0, num_partitions):
            raise RunFailedError(
                f"{who} says num-partitions={num_partitions}, others say {self.num_partitions}"
            )
        if not 0 <= partition < num_partitions:
            raise RunFailedError(f"{who} is not one of 0 to {num_partitions - 1}")
        if partition in self.partitions.values():
            raise RunFailedError(f"two nodes have partition-id {partition}")
        if self.num_clients < num_partitions and not self.interchangeable:
            raise RunFailedError(
                f"num-clients is {self.num_clients}, fewer than the {num_partitions} nodes that host them"
            )
        if description.state != self.state:
            raise RunFailedError(f"{who} builds another model than the server: same code and options there?")
        if description.own_data:
            if self.num_clients != num_partitions:
                raise RunFailedError(
                    f"{who} has its own data, so it is one client: set num-clients={num_partitions}"
                )
        elif description.data != self.data:
            raise RunFailedError(f"{who} loaded other data than the server: same dataset files there?")
        self.num_partitions = num_partitions
        self.own_data |= description.own_data
        self.machines.add(description.machine)
        self.partitions[node_id] = partition


def _cannot_take_part(reply: Message, why: str, whole: str) -> RunFailedError:
    error = RunFailedError(f"a node cannot take part: {why}")
    error.add_note(f"node {reply.metadata.src_node_id} said:\n{whole}")  # for errors.log
    return error
