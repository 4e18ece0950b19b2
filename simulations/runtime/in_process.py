"""The whole federation in this process: for debugging, tests and quick looks."""

from collections.abc import Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from clients.app import app as client_app
from clients.node_config import NUM_PARTITIONS, PARTITION_ID
from clients.simulated import SIMULATED
from models.core.config import Value
from models.core.tracebacks import traceback_of
from server.app import app as server_app
from simulations.runtime.own_grid import OwnGrid
from strategies.wire.identity import RUN_ID
from strategies.wire.node import DEBUG


class InProcessGrid(OwnGrid):
    """Nodes numbered 0 to num_nodes - 1 that answer a message while it is sent.

    With `debug`, the first exception on a node is not answered but raised here.
    """

    def __init__(self, run_config: dict[str, Value], num_nodes: int, *, debug: bool = False) -> None:
        super().__init__()
        self.debug = debug
        self.contexts = {
            node: Context(
                run_id=RUN_ID,
                node_id=node,
                node_config={PARTITION_ID: node, NUM_PARTITIONS: num_nodes, SIMULATED: True, DEBUG: debug},
                state=RecordDict(),
                run_config=run_config,
            )
            for node in range(num_nodes)
        }

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes."""
        return list(self.contexts)

    def answer(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """Let the ClientApp answer each message."""
        return [self._answer(message) for message in messages]

    def _answer(self, message: Message) -> Message:
        try:
            return client_app(message, self.contexts[message.metadata.dst_node_id])
        except Exception as error:  # as a Flower runtime does with whatever a ClientApp raises
            if self.debug:
                raise
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return Message(Error(code, traceback_of(error)), reply_to=message)


def run_in_process(run_config: dict[str, Value], num_nodes: int = 1, *, debug: bool = False) -> None:
    """Run the ServerApp against ClientApps in this process; with `debug`, the first exception ends it."""
    run_server(InProcessGrid(run_config, num_nodes, debug=debug), run_config, debug=debug)


def run_server(grid: OwnGrid, run_config: dict[str, Value], *, debug: bool = False) -> None:
    """Run the ServerApp in this process, over a Grid of polyfed's own."""
    context = Context(
        run_id=RUN_ID, node_id=0, node_config={DEBUG: debug}, state=RecordDict(), run_config=run_config
    )
    server_app(grid, context)
