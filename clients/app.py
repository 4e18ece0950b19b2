"""The Flower ClientApp: one message carries the requests of all clients that live on this node."""

import time
from collections.abc import Callable, Sequence
from logging import INFO

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.deadline import NEVER, Deadline
from clients.evaluate import evaluate_one_by_one
from clients.node_config import NodeConfig
from clients.old_states import drop_old_states, mark_in_use
from clients.stacked import train_stacked
from clients.state import ClientStates
from clients.train import train_one_by_one
from clients.worker import Worker, load_worker
from models.core.config import TaskConfig, read
from models.core.device import pinned
from models.core.log import log
from models.core.machine import described
from models.core.tracebacks import line_of, traceback_of
from models.data.fingerprint import data_sha256
from models.state import describe_state
from strategies.wire.node import NodeDescription, NodeError, debugged
from strategies.wire.records import unpack
from strategies.wire.reply import NodeReply
from strategies.wire.request import ClientRequest, states_of, unpack_requests

Work = Callable[[Worker, Sequence[ClientRequest], ClientStates, NodeReply, Deadline], None]
"""Does what the requests ask until the deadline, and collects every client's reply or failure."""

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Tell the server which clients live here, and what task and data they have, or why they cannot be."""
    try:
        content = _description(context).pack()
    except Exception as error:  # Flower would drop its traceback on the way
        if debugged(context.node_config):
            raise
        content = NodeError(line_of(error), traceback_of(error)).pack()
    return Message(content, reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train every client that the message names."""
    stacked = read(TaskConfig, context.run_config).engine == "stacked"
    return _reply(message, context, train_stacked if stacked else train_one_by_one)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate every client that the message names."""
    return _reply(message, context, evaluate_one_by_one)


def _description(context: Context) -> NodeDescription:
    node = NodeConfig.from_flower(context.node_config)
    partition_id, num_partitions = node.place
    worker = load_worker(read(TaskConfig, context.run_config), node.data_path)
    if node.keep_state_days is not None:
        for run in drop_old_states(node.state_root, node.keep_state_days):
            log(INFO, "Removed what clients remembered of %s, by keep-state-days", run)
    return NodeDescription(
        partition_id=partition_id,
        num_partitions=num_partitions,
        own_data=bool(node.data_path),
        data=data_sha256(worker.dataset),
        state=(*describe_state(worker.initial), *worker.task.agreed),
        machine=described(worker.config.threads, worker.device),
    )


def _reply(message: Message, context: Context, work: Work) -> Message:
    """Unpack the requests, do the work, and pack the replies."""
    try:
        reply = _collect(message, context, work)
    except Exception as error:  # of the node, so of each of its clients
        reply = NodeReply(debug=debugged(context.node_config))
        for client, _ in unpack(message.content):
            reply.fail(client, error)
    return Message(reply.pack(), reply_to=message)


def _collect(message: Message, context: Context, work: Work) -> NodeReply:
    started = time.perf_counter()
    info, requests = unpack_requests(message.content)
    debug = debugged(context.node_config)
    # Who steps through a client in a debugger takes their time.
    deadline = NEVER if debug else Deadline.after(info.seconds_left)
    node = NodeConfig.from_flower(context.node_config)
    worker = load_worker(read(TaskConfig, context.run_config), node.data_path)
    reply = NodeReply.collecting(
        info.weighted_by,
        len(requests),
        compressed=bool(worker.config.compression),
        debug=debug,
    )
    # The run's absolute folder where server and nodes share a disk, else a name under the node's own.
    states = ClientStates(node.states_of(info.state_path), states_of(message.content))
    mark_in_use(states.folder)
    with pinned(worker.config.threads):
        work(worker, requests, states, reply, deadline)
    reply.seconds = time.perf_counter() - started
    return reply
