"""What a node does for one message: it may do so at once, or in parts, as a worker that is dealt clients.

A worker that is dealt clients bit by bit unpacks the message once. What it has added up it hands over when
it is asked to, so that it is the same work, and the same reply, however the clients were dealt.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from flwr.app import Context, MessageType, RecordDict

from clients.belief import believed
from clients.deadline import NEVER, Deadline
from clients.evaluate import evaluate_one_by_one
from clients.fit import check_fits, check_message
from clients.node_config import NodeConfig
from clients.old_states import mark_in_use
from clients.stacked import train_stacked
from clients.state import ClientStates
from clients.train import train_one_by_one
from clients.worker import Load, Worker, load_worker, tokens_of, worker_of
from models.core.config import TaskConfig, read
from models.core.device import pinned
from models.data.agreed_labels import labelled
from strategies.wire.compression import CODECS
from strategies.wire.node import debugged
from strategies.wire.reply import UPDATES_IN_A_SUM, NodeReply
from strategies.wire.request import ClientRequest, RoundInfo, states_of, unpack_requests
from strategies.wire.vocabulary import Vocabulary

Work = Callable[[Worker, Sequence[ClientRequest], ClientStates, NodeReply, Deadline], None]
"""Does what the requests ask until the deadline, and collects every client's reply or failure."""


@dataclass(frozen=True)
class NodeWork:
    """A message that a node works on."""

    worker: Worker
    info: RoundInfo
    requests: Sequence[ClientRequest]
    """Of all clients that the message names, by client number."""
    states: ClientStates
    deadline: Deadline
    work: Work
    debug: bool

    @staticmethod
    def begin(
        content: RecordDict,
        message_type: str,
        context: Context,
        seconds_left: float | None = None,
        load: Load = load_worker,
        spent: float = 0.0,
    ) -> "NodeWork":
        """Unpack a message and check all of it; its clients have the time that it says, less `spent` seconds.

        Who gives `seconds_left` sees to it by themselves that no client takes longer than it may. Raises
        ValueError for a message that is not as it must be: nothing has been done, written or imported then.
        """
        info, requests = unpack_requests(content)
        if seconds_left is not None:
            info = replace(info, seconds_left=seconds_left, client_seconds=math.inf)
        debug = debugged(context.node_config)
        node = NodeConfig.from_flower(context.node_config)
        # Who steps through a client in a debugger takes their time.
        deadline = NEVER if debug else Deadline.after(info.seconds_left - spent, info.client_seconds)
        vocabulary = Vocabulary.unpack(content)
        config = labelled(believed(read(TaskConfig, context.run_config), node), vocabulary.labels)
        check_message(info, requests, node, config.num_clients)
        # The run's absolute folder where server and nodes share a disk, else a name under the node's own.
        states = ClientStates(node.states_of(info.state_path), states_of(content))
        worker = worker_of(config, node, load, tokens_of(vocabulary))
        check_fits(requests, worker)
        mark_in_use(states.folder)
        work = _work_of(message_type, worker, info)
        return NodeWork(worker, info, requests, states, deadline, work, debug)

    def do(self, clients: Collection[int] | None = None, reply: NodeReply | None = None) -> NodeReply:
        """Do what these clients are asked, all of them unless given, and collect it in a reply."""
        started = time.perf_counter()
        reply = reply or self.new_reply()
        wanted = None if clients is None else set(clients)
        asked = [each for each in self.requests if wanted is None or each.client in wanted]
        with pinned(self.worker.config.threads):
            self.work(self.worker, asked, self.states, reply, self.deadline)
        reply.seconds += time.perf_counter() - started
        return reply

    def new_reply(self) -> NodeReply:
        """Return a reply without any client's."""
        compression = self.worker.config.compression
        in_a_sum = CODECS[compression].updates_in_a_sum if compression else UPDATES_IN_A_SUM
        return NodeReply.collecting(self.info.weighted_by, len(self.requests), in_a_sum, debug=self.debug)


def _work_of(message_type: str, worker: Worker, info: RoundInfo) -> Work:
    if message_type == MessageType.EVALUATE:
        return evaluate_one_by_one
    if info.personal_rules or worker.apart or worker.engine != "stacked":
        return train_one_by_one
    return train_stacked
