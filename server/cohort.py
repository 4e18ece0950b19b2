"""A Grid on which a strategy sees clients, while messages travel between nodes."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from torch import Tensor

from server.errors import RunFailedError
from server.exchange import exchange, one_line
from server.node_registry import NodeRegistry
from strategies.wire.compression import decompress
from strategies.wire.exact_sum import ExactSum
from strategies.wire.packing import (
    FIXED,
    PLAN,
    Replies,
    add_update,
    mean_metrics,
    num_bytes,
    pack,
    to_record,
    weight_of,
)

CLIENT_FAILED = 2
"""Flower's error code for a ClientApp that raised."""

# How Ray names an actor that has gone; Flower puts it back into its pool, and all later messages to it fail.
DEAD_WORKER = ("ActorDiedError", "ActorUnavailableError", "OutOfMemoryError", "RayActorError")


@dataclass
class Exchange:
    """What one exchange of messages took."""

    clients: list[int] = field(default_factory=list)
    """Clients that answered."""
    failures: dict[int, str] = field(default_factory=dict)
    """Client -> why it failed."""
    num_examples: int = 0
    """Examples of the clients that answered."""
    bytes_down: int = 0
    """Bytes of arrays sent to nodes."""
    bytes_up: int = 0
    """Bytes of arrays received from nodes."""
    slowest_node: float = 0.0
    """Seconds that the busiest node computed."""


class CohortGrid(Grid):
    """Packs the messages of clients that live on one node into one, over any other Grid.

    Node ids are client numbers here. With `weighted_by`, nodes add up their clients' arrays, and a
    strategy that needs no more than the weighted mean gets it as a single reply; otherwise it gets every
    client's. Replies come in client order. A client that failed is an error reply for it alone. Every node
    gets the weights in `fixed` beside the strategy's, once a message.
    """

    def __init__(
        self,
        grid: Grid,
        node_registry: NodeRegistry,
        *,
        state_path: str,
        weighted_by: str = "",
        node_timeout: float = 300.0,
        fixed: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.grid = grid
        self.node_registry = node_registry
        self.state_path = state_path
        self.weighted_by = weighted_by
        self.node_timeout = node_timeout
        self.fixed = ArrayRecord(dict(fixed)) if fixed else None
        self.sampling_deadline = math.inf
        self.last = Exchange()

    def set_run(self, run: Run) -> None:
        """Set the run of the grid underneath."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the grid underneath."""
        return self.grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to a client."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the clients, in order, whose nodes are connected."""
        node_ids = list(self.grid.get_node_ids())
        self.node_registry.refresh(self.grid, node_ids, self.node_timeout)
        clients = self.node_registry.hosts(node_ids)
        if time.monotonic() > self.sampling_deadline:
            away = sorted(set(range(self.node_registry.num_clients)) - set(clients))
            raise RunFailedError(
                f"too few clients are connected to sample from: clients {away} have been away for "
                f"{self.node_timeout:g} s (node-timeout)"
            )
        return clients

    def expect_sampling(self) -> None:
        """Give the strategy node-timeout from now to find enough clients; it may wait for ever by itself."""
        self.sampling_deadline = time.monotonic() + self.node_timeout

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: replies are packed by node, so they are only to be had together."""
        raise NotImplementedError("use send_and_receive: clients that share a node answer together")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse, as `push_messages` does."""
        raise NotImplementedError("use send_and_receive: clients that share a node answer together")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages to clients; return their replies in client order, failures as error replies."""
        self.last = Exchange()
        asked = {message.metadata.dst_node_id: message for message in messages}
        if not asked:
            return []
        node_ids = list(self.grid.get_node_ids())
        assigned = self.node_registry.assign(asked, node_ids)
        training = next(iter(asked.values())).metadata.message_type.startswith("train")
        packed = [
            self._pack(node, [asked[client] for client in clients], training)
            for node, clients in assigned.items()
        ]
        # Not by node: the SuperLink answers in its own name for a node that has gone.
        answers = {
            reply.metadata.reply_to_message_id: reply
            for reply in exchange(self.grid, packed, self.node_timeout if timeout is None else timeout)
        }
        replies = [
            self._unpack(answers.get(message.metadata.message_id), clients)
            for message, clients in zip(packed, assigned.values(), strict=True)
        ]
        away = asked.keys() - {client for clients in assigned.values() for client in clients}
        replies.append(Replies(failures=dict.fromkeys(away, "its node has gone")))
        return self._for_strategy(replies, asked, training)

    def _pack(self, node: int, messages: list[Message], training: bool) -> Message:
        content = pack([(message.metadata.dst_node_id, message.content) for message in messages])
        plan = content.config_records[PLAN]
        plan["state-path"] = self.state_path
        plan["weighted-by"] = self.weighted_by if training else ""
        if self.fixed is not None:
            content[FIXED] = self.fixed
        self.last.bytes_down += num_bytes(content)
        return Message(content, node, messages[0].metadata.message_type)

    def _unpack(self, answer: Message | None, clients: list[int]) -> Replies:
        """Return a node's replies; whatever befell the whole node befell each of its clients."""
        if answer is None:
            return Replies(failures=dict.fromkeys(clients, "its node did not answer in time"))
        if answer.has_error():
            reason = answer.error.reason or ""
            if any(word in reason for word in DEAD_WORKER):
                who = ", ".join(map(str, clients))
                raise RunFailedError(
                    f"a worker died (out of memory?) while it worked for clients {who}: {one_line(reason)}"
                )
            return Replies(failures=dict.fromkeys(clients, one_line(reason)))
        self.last.bytes_up += num_bytes(answer.content)
        replies = Replies.unpack(answer.content)
        self.last.slowest_node = max(self.last.slowest_node, replies.seconds)
        return replies

    def _for_strategy(
        self, replies: list[Replies], asked: Mapping[int, Message], training: bool
    ) -> list[Message]:
        contents = dict(
            sorted((pair for reply in replies for pair in reply.contents), key=lambda pair: pair[0])
        )
        failures = {client: why for reply in replies for client, why in reply.failures.items()}
        self.last.clients = list(contents)
        self.last.num_examples = int(sum(weight_of(content, "num-examples") for content in contents.values()))
        self.last.failures = dict(sorted(failures.items()))
        errors = [
            Message(Error(CLIENT_FAILED, f"client {client}: {why}"), reply_to=asked[client])
            for client, why in self.last.failures.items()
        ]
        weighted_by = self.weighted_by or "num-examples"
        if training and contents and not any(weight_of(each, weighted_by) for each in contents.values()):
            raise RunFailedError(f"the clients of this round have no examples ({weighted_by} is 0)")
        if training and self.weighted_by and contents:
            # Even where no node had two clients: the mean must not be rounded in another way then.
            mean = Message(self._mean(replies, contents, asked), reply_to=asked[next(iter(contents))])
            return [mean, *errors]
        answered = [
            Message(_restored(content, asked[client]), reply_to=asked[client])
            for client, content in contents.items()
        ]
        return sorted([*answered, *errors], key=lambda reply: reply.metadata.src_node_id)

    def _mean(
        self, replies: list[Replies], contents: Mapping[int, RecordDict], asked: Mapping[int, Message]
    ) -> RecordDict:
        """Return the weighted mean of all clients as if it were one client's reply."""
        total = ExactSum()
        for reply in replies:
            if reply.partial is not None:
                total.merge(reply.partial)
            else:  # a node with few clients sends their arrays as they are
                for client, content in reply.contents:
                    add_update(total, _restored(content, asked[client]), self.weighted_by)
        metrics = mean_metrics(list(contents.values()), self.weighted_by)
        return RecordDict({"arrays": to_record(total.mean()), "metrics": metrics})


def _restored(content: RecordDict, asked: Message) -> RecordDict:
    """Return a client's reply without compression."""
    records = asked.content.array_records.values()
    return decompress(content, next(iter(records))) if records else content
