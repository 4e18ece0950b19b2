"""What the Grids of polyfed's own runtimes share: they answer messages themselves, at once."""

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from strategies.wire.identity import RUN_ID, let_messages_be_made


class OwnGrid(Grid):
    """A Grid whose nodes have answered when a call returns."""

    waits_by_itself = True
    """Nobody need look for answers."""
    interchangeable_nodes = True
    """Its nodes share a disk."""

    def __init__(self) -> None:
        let_messages_be_made()
        self._numbers = itertools.count()
        self._answers: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Ignore the run: there is only one."""

    @property
    def run(self) -> Run:
        """A run that nobody has registered."""
        return Run.create_empty(RUN_ID)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def let_go(self) -> None:
        """Take note that nothing more will be asked of the nodes; the server has work to do yet."""

    @abstractmethod
    def answer(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """Return the nodes' answers to messages that have ids."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the nodes' answers."""
        return list(self.answers(messages, timeout))

    def answers(self, messages: Iterable[Message], timeout: float | None) -> Iterator[Message]:
        """Yield the nodes' answers one by one: who reads them can let go of each before the next is made."""
        for message in [self._with_id(each) for each in messages]:
            yield from self.answer([message], timeout)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have the messages answered, and keep the answers."""
        sent = [self._with_id(message) for message in messages]
        for reply in self.answer(sent, None):
            self._answers[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the answers to these messages."""
        return [self._answers.pop(each) for each in list(message_ids) if each in self._answers]

    def _with_id(self, message: Message) -> Message:
        message.metadata.__dict__["_message_id"] = f"message-{next(self._numbers)}"
        return message
