"""A worker of a simulation: a process that Ray starts, keeps the ClientApp warm and is dealt clients."""

import gc
from collections.abc import Collection
from typing import Any

from flwr.app import Context, RecordDict

from clients.answers import description_of
from clients.node_config import NUM_PARTITIONS, PARTITION_ID
from clients.node_work import NodeWork
from clients.simulated import SIMULATED
from clients.worker import Worker, load_worker
from models.core.config import TaskConfig, Value
from strategies.wire.identity import RUN_ID, let_messages_be_made
from strategies.wire.reply import NodeReply

NODE = 0
"""All workers of a simulation together are one node, which hosts every client."""


class RayWorker:
    """Does what is asked of the clients that it is dealt; a Ray actor is one of these.

    It keeps the message that it works on. The clients' sum stays here until it is asked for, as it is
    as large for one client as for all of them.
    """

    def __init__(self, run_config: dict[str, Value]) -> None:
        let_messages_be_made()
        self.begin(run_config)

    def begin(self, run_config: dict[str, Value]) -> None:
        """Be a worker of this run from now on, and of no earlier one."""
        gc.unfreeze()  # what an earlier run has left may go
        self._set_apart = False
        self.context = Context(
            run_id=RUN_ID,
            node_id=NODE,
            node_config={PARTITION_ID: NODE, NUM_PARTITIONS: 1, SIMULATED: True},
            state=RecordDict(),
            run_config=run_config,
        )
        self._number = -1
        self._work: NodeWork | None = None
        self._refused: Exception = RuntimeError("no message has come")
        """Why the work on the message could not begin."""
        self._held: NodeReply | None = None

    def describe(self) -> RecordDict:
        """Return what the ClientApp says of this node."""
        return description_of(self.context, self.load)

    def load(self, config: TaskConfig, data_path: str) -> Worker:
        """Return what this process keeps warm."""
        worker = load_worker(config, data_path)
        if not self._set_apart:  # not gc.get_freeze_count, which counts: 25 ms in every round
            self._set_apart = True
            gc.freeze()  # modules and data stay to the end: Python need not look through them for garbage
        return worker

    def do(
        self, number: int, shared: list[Any], message_type: str, clients: Collection[int], seconds_left: float
    ) -> NodeReply | None:
        """Do what message `number` asks of these clients; return their reply, None where it is held.

        `shared` holds the message's content, or a reference to it, and nothing where this worker was sent it
        before. In a list a reference stays one: given by itself, Ray would read what it stands for.
        """
        if number != self._number:
            self._number, self._held, self._work = number, None, None
            try:
                content = shared[0] if isinstance(shared[0], RecordDict) else _read(shared[0])
                self._work = NodeWork.begin(content, message_type, self.context, seconds_left, self.load)
            except Exception as error:
                self._refused = error  # of all clients of the message
        if self._work is None:
            raise self._refused
        try:
            reply = self.work(self._work, clients, self._held)
        except Exception as error:
            if self._held is None:
                raise
            reply = self._held  # which some of these clients may be in already
            answered = {each.client for each in reply.replies} | {each.client for each in reply.failures}
            for client in sorted(set(clients) - answered):
                reply.fail(client, error)
        self._held = reply if reply.total is not None or reply.statistics is not None else None
        return None if self._held else reply

    def work(self, work: NodeWork, clients: Collection[int], reply: NodeReply | None) -> NodeReply:
        """Do a part of a message's work."""
        return work.do(clients, reply)

    def hand_over(self) -> NodeReply | None:
        """Return what is held, and hold it no more."""
        held, self._held = self._held, None
        return held


def _read(reference: Any) -> RecordDict:
    """Return what lies in Ray's object store."""
    import ray

    content: RecordDict = ray.get(reference)
    return content
