"""The whole federation in this process: for debugging, tests and quick looks."""

import itertools
from collections.abc import Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from clients.app import app as client_app
from clients.node_config import NUM_PARTITIONS, PARTITION_ID
from models.core.config import Value
from models.core.tracebacks import traceback_of
from server.app import app as server_app
from strategies.wire.identity import RUN_ID, let_messages_be_made
from strategies.wire.node import DEBUG


class InProcessGrid(Grid):
    """Nodes numbered 0 to num_nodes - 1 that answer a message while it is pushed.

    With `debug`, the first exception on a node is not answered but raised here.
    """

    interchangeable_nodes = True

    def __init__(self, run_config: dict[str, Value], num_nodes: int, *, debug: bool = False) -> None:
        let_messages_be_made()
        self.debug = debug
        self.contexts = {
            node: Context(
                run_id=RUN_ID,
                node_id=node,
                node_config={PARTITION_ID: node, NUM_PARTITIONS: num_nodes, DEBUG: debug},
                state=RecordDict(),
                run_config=run_config,
            )
            for node in range(num_nodes)
        }
        self._replies: dict[str, Message] = {}
        self._numbers = itertools.count()

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

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Let the ClientApp answer each message."""
        return [self._answer(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the answers to these messages."""
        return [
            self._replies.pop(message_id) for message_id in list(message_ids) if message_id in self._replies
        ]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, then pull."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> str:
        message_id = f"message-{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = message_id
        try:
            reply = client_app(message, self.contexts[message.metadata.dst_node_id])
        except Exception as error:  # as a Flower runtime does with whatever a ClientApp raises
            if self.debug:
                raise
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            reply = Message(Error(code, traceback_of(error)), reply_to=message)
        self._replies[message_id] = reply
        return message_id


def run_in_process(run_config: dict[str, Value], num_nodes: int = 1, *, debug: bool = False) -> None:
    """Run the ServerApp against ClientApps in this process; with `debug`, the first exception ends it."""
    grid = InProcessGrid(run_config, num_nodes, debug=debug)
    context = Context(
        run_id=RUN_ID, node_id=0, node_config={DEBUG: debug}, state=RecordDict(), run_config=run_config
    )
    server_app(grid, context)
