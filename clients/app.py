"""The Flower ClientApp: one message carries the work of all clients that live on this node."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.site import Site, load_site
from clients.work import evaluate_client, train_client
from models.config import TaskConfig, read
from models.data.fingerprint import data_sha256
from models.device import pinned
from models.errors import UserError
from models.state import describe_state
from strategies.packing import PLAN, Replies, unpack

Work = Callable[[Site, int, RecordDict, Path], RecordDict]

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Tell the server which clients live here, and what task and data they have."""
    node = context.node_config
    if "partition-id" not in node or "num-partitions" not in node:
        raise UserError(
            'start this SuperNode with --node-config "partition-id=0 num-partitions=3" (its own numbers)'
        )
    site = _site(context)
    description = {
        "partition-id": node["partition-id"],
        "num-partitions": node["num-partitions"],
        "own-data": "data-path" in node,
        "num-examples": len(site.dataset.train),
        "data": data_sha256(site.dataset),
        "state": describe_state(site.initial),
    }
    return Message(
        RecordDict({"node": ConfigRecord({"description": json.dumps(description)})}), reply_to=message
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train every client that the message names."""
    return _each_client(message, context, train_client)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate every client that the message names."""
    return _each_client(message, context, evaluate_client)


def _site(context: Context) -> Site:
    config = read(TaskConfig, context.run_config)
    return load_site(config, str(context.node_config.get("data-path", "")))


def _state_root(context: Context) -> Path:
    return Path(str(context.node_config.get("state-path", Path.home() / ".polyfed" / "state")))


def _each_client(message: Message, context: Context, work: Work) -> Message:
    started = time.perf_counter()
    site = _site(context)
    plan = message.content.config_records[PLAN]
    # The run's absolute folder where server and nodes share a disk, else a name under the node's own.
    folder = _state_root(context) / str(plan["state-path"])
    replies = Replies()
    with pinned(site.config.threads):
        for client, content in unpack(message.content):
            try:
                replies.contents.append((client, work(site, client, content, folder)))
            except Exception as error:  # whatever one client does, the others' work counts
                replies.failures[client] = f"{type(error).__name__}: {error}"
        if weighted_by := str(plan.get("weighted-by", "")):
            replies.presum(weighted_by)
    replies.seconds = time.perf_counter() - started
    return Message(replies.pack(), reply_to=message)
