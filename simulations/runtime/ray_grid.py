"""A Grid over Ray: its one node hosts every client, and its workers are dealt them as they get free."""

import math
import time
from collections.abc import Callable, Iterable
from logging import INFO, WARNING

import ray
from flwr.app import Message, RecordDict
from ray.exceptions import GetTimeoutError

from models.core.log import log
from models.core.tracebacks import line_of, traceback_of
from simulations.runtime.own_grid import OwnGrid
from simulations.runtime.portions import dealt, stacks
from simulations.runtime.ray_dealer import DEATHS, Dealer, how_it_died
from simulations.runtime.ray_worker import NODE
from simulations.runtime.ray_workers import RayWorkers
from strategies.wire.node import ERROR, NodeDescription, NodeError
from strategies.wire.node import NODE as DESCRIBED
from strategies.wire.records import clients_of, num_bytes
from strategies.wire.request import info_of

STACK = 25
"""Clients that are trained side by side under engine = "stacked"."""
SMALL = 500_000
"""Bytes of a message below which each worker is sent a copy: its way by the object store takes longer."""


class RayGrid(OwnGrid):
    """Sends a message's content to Ray's object store once, where all workers of a machine read it."""

    waits_by_itself = True
    """Nobody need look for answers."""

    def __init__(
        self,
        workers: RayWorkers,
        *,
        stacked: bool,
        size_of: Callable[[int], int] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`size_of` says how many examples a client has; `check` raises where the run is to end."""
        super().__init__()
        self.workers, self.stacked, self.size_of, self.check = workers, stacked, size_of, check
        self._messages = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the node."""
        return [NODE]

    def answer(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """Return the node's answers."""
        return [Message(self._answer(each, timeout or math.inf), reply_to=each) for each in messages]

    def _answer(self, message: Message, patience: float) -> RecordDict:
        self.check()
        if message.metadata.message_type == "query":
            return self._describe(patience)
        self._messages += 1
        clients = clients_of(message.content)
        if self.stacked:
            portions = stacks(clients, STACK)
        else:
            portions = dealt(clients, len(self.workers.seats), self.size_of)
        dealer = Dealer(
            self.workers,
            self._messages,
            message.content if num_bytes(message.content) < SMALL else ray.put(message.content),
            message.metadata.message_type,
            time.monotonic() + info_of(message.content).seconds_left,
        )
        return dealer.deal(portions, patience).pack()

    def _describe(self, patience: float) -> RecordDict:
        """Return what the workers say of the node: all of them the same, or why they cannot take part."""
        if self.workers.where:
            log(INFO, "%s", self.workers.where)
        asked = [seat.actor.describe.remote() for seat in self.workers.seats]
        try:
            # Ray takes no infinity.
            said: list[RecordDict] = ray.get(asked, timeout=patience if patience < math.inf else None)
        except Exception as error:
            return NodeError(_why_silent(error, patience), traceback_of(error)).pack()
        if failed := [each for each in said if ERROR in each.config_records[DESCRIBED]]:
            return failed[0]
        described = [NodeDescription.unpack(each) for each in said]
        machines = sorted({each.machine for each in described})
        alike = {each.model_copy(update={"machine": "; ".join(machines)}) for each in described}
        if len(alike) > 1:
            why = "its workers have other code or data than one another"
            return NodeError(why, "\n".join(map(str, said))).pack()
        if len(machines) > 1:
            log(WARNING, "Workers compute on different machines, which may round differently: %s", machines)
        return alike.pop().pack()


def _why_silent(error: Exception, patience: float) -> str:
    """Return in one line why workers have not said what they are."""
    if isinstance(error, GetTimeoutError):
        return f"not all of its workers began within {patience:g} s; raise node-timeout"
    if isinstance(error, DEATHS):
        return f"a worker could not begin: {how_it_died(error)}"
    return line_of(error)
