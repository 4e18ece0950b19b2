"""A Grid whose nodes answer what a test says, in the order that it says."""

from collections.abc import Callable, Iterable

from flwr.app import Error, Message, RecordDict

from simulations.runtime.in_process import InProcessGrid

Answer = Callable[[Message], RecordDict | Error | Message | None]
"""What a node makes of a message; None is silence, a whole Message goes back as it is."""


class ScriptedGrid(InProcessGrid):
    """Nodes by id; they can come and go between two calls."""

    waits_by_itself = False
    interchangeable_nodes = False

    def __init__(self, nodes: dict[int, Answer]) -> None:
        super().__init__({}, 0)
        self.nodes = nodes
        self.sent: list[Message] = []
        self.backwards = False
        """Whether the node that was asked last answers first."""

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are there now, in no order that means anything."""
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Number the messages and let the nodes answer them."""
        message_ids = []
        for message in messages:
            self.sent.append(message)
            message_ids.append(f"message-{len(self.sent)}")
            message.metadata.__dict__["_message_id"] = message_ids[-1]
            answer = self.nodes[message.metadata.dst_node_id](message)
            if answer is not None:
                whole = isinstance(answer, Message)
                self._answers[message_ids[-1]] = answer if whole else Message(answer, reply_to=message)
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the answers; where they come backwards, only the last one, so that it is the first."""
        ready = sorted(set(message_ids) & self._answers.keys())
        if self.backwards:
            ready = [message_id for message_id in ready if message_id == max(self._answers)]
        return [self._answers.pop(message_id) for message_id in ready]
