"""Asking a strategy, before the run, what it will ask of clients.

What clients have no answer to is then refused before anybody has waited for nodes, or trained.
"""

import copy
import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from torch import Tensor

from models.core.errors import UserError
from server.cohort import refused
from server.requests import Requests
from strategies.declaration import chain_of
from strategies.wire.arrays import hold_tensors
from strategies.wire.identity import let_messages_be_made_anywhere
from strategies.wire.train_config import SERVER_ROUND

MOST_LOOKS = 10
"""Looks at the connected clients after which a strategy is taken to wait for more of them."""
KNOWN = ("flwr.", "strategies.")
"""Where strategies lie that ask nothing else than Flower's do."""


class _EnoughError(Exception):
    """The rehearsal cannot go on: there are no clients to answer."""


def rehearse(strategy: Strategy, weights: Mapping[str, Tensor], requests: Requests) -> None:
    """Let a copy of the strategy prepare its first round, and throw away what it would send.

    Raises UserError for what no client can be asked. Any other error is left to the run, which has all that
    a strategy may look at.
    """
    if all(_is_known(each) for each in chain_of(strategy)):
        return
    let_messages_be_made_anywhere()
    grid = _RehearsalGrid(requests)
    with _unnoticed():
        try:
            double = copy.deepcopy(strategy)
            for configure in (double.configure_train, double.configure_evaluate):
                requests.read(configure(1, hold_tensors(weights), ConfigRecord({SERVER_ROUND: 1}), grid))
        except UserError:
            raise
        except Exception:  # the run will show it, or has what the copy lacked
            pass


def _is_known(strategy: Strategy) -> bool:
    methods = type(strategy).configure_train, type(strategy).configure_evaluate
    return all(method.__module__.startswith(KNOWN) for method in methods)


@contextmanager
def _unnoticed() -> Iterator[None]:
    """Put back what strategies draw from, and keep what Flower's classes say of it out of the log."""
    drawn, drawn_by_numpy = random.getstate(), np.random.get_state()
    flower = logging.getLogger("flwr")
    said, flower.disabled = flower.disabled, True
    try:
        yield
    finally:
        flower.disabled = said
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)


class _RehearsalGrid(Grid):
    """Shows all clients, and carries nothing."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests
        self._looks = 0

    def set_run(self, run: Run) -> None:
        """Ignore the run: there is none yet."""

    @property
    def run(self) -> Run:
        """No run."""
        raise _EnoughError

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
        """Return all clients."""
        self._looks += 1
        if self._looks > MOST_LOOKS or self.requests.num_clients is None:
            raise _EnoughError
        return list(range(self.requests.num_clients))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse, as the grid of a run does."""
        raise refused(self.requests.strategy, "push_messages")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse, as the grid of a run does."""
        raise refused(self.requests.strategy, "pull_messages")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Look at the messages, and end: there are no replies."""
        self.requests.read(messages)
        raise _EnoughError
