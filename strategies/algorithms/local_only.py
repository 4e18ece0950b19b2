"""The local-only baseline: what a client reaches by itself, without a federation.

One client trains in every round and its update becomes the model, as if nobody else were there. With its
`num-server-rounds` set to the rounds that a client takes part in, it trains for as many epochs as in the
federation that it is measured against.
"""

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from strategies.wire.train_config import SERVER_ROUND


class LocalOnly(FedAvg):
    """FedAvg over the one client whose number is `client`, whatever cohort the run config asks for."""

    def __init__(self, client: int, num_clients: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if type(client) is not int or client < 0:  # True is an int to isinstance
            raise ValueError(f"client must be a client's number, from 0 on, got {client!r}")
        if num_clients is not None and client >= num_clients:
            raise ValueError(f"client must be below num-clients ({num_clients}), got {client}")
        self.client = client

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the client, and nobody else.

        Raises ValueError for a client that is not connected.
        """
        connected = list(grid.get_node_ids())
        if self.client not in connected:
            raise ValueError(
                f"client {self.client} is not among the {len(connected)} connected clients: "
                "set `client` in strategy-options to a number below num-clients"
            )
        config[SERVER_ROUND] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return [Message(content=record, message_type=MessageType.TRAIN, dst_node_id=self.client)]
