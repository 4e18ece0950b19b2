"""The Flower ClientApp: one message carries the requests of all clients that live on this node."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.evaluate import evaluate_one_by_one
from clients.stacked import train_stacked
from clients.state import ClientStates
from clients.train import train_one_by_one
from clients.worker import Worker, load_worker
from models.core.config import TaskConfig, read
from models.core.device import pinned
from models.core.errors import UserError
from models.core.tracebacks import line_of, traceback_of
from models.data.fingerprint import data_sha256
from models.state import describe_state
from strategies.wire.records import unpack
from strategies.wire.reply import NodeReply
from strategies.wire.request import ClientRequest, unpack_requests

Work = Callable[[Worker, Sequence[ClientRequest], ClientStates, NodeReply], None]
"""Does what the requests ask, and collects every client's reply or failure."""

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Tell the server which clients live here, and what task and data they have, or why they cannot be."""
    try:
        said = {"description": json.dumps(_description(context))}
    except Exception as error:  # Flower would drop its traceback on the way
        if _debugged(context):
            raise
        said = {"error": line_of(error), "traceback": traceback_of(error)}
    return Message(RecordDict({"node": ConfigRecord({**said})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train every client that the message names."""
    stacked = read(TaskConfig, context.run_config).engine == "stacked"
    return _reply(message, context, train_stacked if stacked else train_one_by_one)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate every client that the message names."""
    return _reply(message, context, evaluate_one_by_one)


def _description(context: Context) -> dict[str, object]:
    node = context.node_config
    if "partition-id" not in node or "num-partitions" not in node:
        raise UserError(
            'start this SuperNode with --node-config "partition-id=0 num-partitions=3" (its own numbers)'
        )
    worker = _worker(context)
    return {
        "partition-id": node["partition-id"],
        "num-partitions": node["num-partitions"],
        "own-data": "data-path" in node,
        "data": data_sha256(worker.dataset),
        "state": [*describe_state(worker.initial), *worker.task.agreed],
    }


def _reply(message: Message, context: Context, work: Work) -> Message:
    """Unpack the requests, do the work, and pack the replies."""
    try:
        reply = _collect(message, context, work)
    except Exception as error:  # of the node, so of each of its clients
        reply = NodeReply(debug=_debugged(context))
        for client, _ in unpack(message.content):
            reply.fail(client, error)
    return Message(reply.pack(), reply_to=message)


def _collect(message: Message, context: Context, work: Work) -> NodeReply:
    started = time.perf_counter()
    worker = _worker(context)
    info, requests = unpack_requests(message.content)
    reply = NodeReply.collecting(
        info.weighted_by, len(requests), compressed=bool(worker.config.compression), debug=_debugged(context)
    )
    # The run's absolute folder where server and nodes share a disk, else a name under the node's own.
    states = ClientStates(_state_root(context) / info.state_path)
    with pinned(worker.config.threads):
        work(worker, requests, states, reply)
    reply.seconds = time.perf_counter() - started
    return reply


def _debugged(context: Context) -> bool:
    """Return whether the first exception is to be seen by a debugger, not reported."""
    return bool(context.node_config.get("debug", False))


def _worker(context: Context) -> Worker:
    config = read(TaskConfig, context.run_config)
    return load_worker(config, str(context.node_config.get("data-path", "")))


def _state_root(context: Context) -> Path:
    return Path(str(context.node_config.get("state-path", Path.home() / ".polyfed" / "state")))
