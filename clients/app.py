"""The Flower ClientApp: one message carries the work of all clients that live on this node."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from clients.stacked import train_stacked
from clients.work import Answer, Order, evaluate_client, train_client
from clients.worker import Worker, load_worker
from models.core.config import TaskConfig, read
from models.core.device import pinned
from models.core.errors import UserError
from models.data.fingerprint import data_sha256
from models.state import describe_state
from strategies.wire.exact_sum import ExactSum
from strategies.wire.packing import FIXED, PLAN, UPDATES_IN_A_SUM, Replies, to_arrays, unpack

Work = Callable[[Worker, Order], Answer]
Outcomes = Iterator[tuple[Order, Answer | Exception]]

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Tell the server which clients live here, and what task and data they have."""
    node = context.node_config
    if "partition-id" not in node or "num-partitions" not in node:
        raise UserError(
            'start this SuperNode with --node-config "partition-id=0 num-partitions=3" (its own numbers)'
        )
    worker = _worker(context)
    description = {
        "partition-id": node["partition-id"],
        "num-partitions": node["num-partitions"],
        "own-data": "data-path" in node,
        "data": data_sha256(worker.dataset),
        "state": [*describe_state(worker.initial), *worker.task.agreed],
    }
    return Message(
        RecordDict({"node": ConfigRecord({"description": json.dumps(description)})}), reply_to=message
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train every client that the message names."""
    stacked = read(TaskConfig, context.run_config).engine == "stacked"
    return _each_client(message, context, train_stacked if stacked else _one_by_one(train_client))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate every client that the message names."""
    return _each_client(message, context, _one_by_one(evaluate_client))


def _worker(context: Context) -> Worker:
    config = read(TaskConfig, context.run_config)
    return load_worker(config, str(context.node_config.get("data-path", "")))


def _state_root(context: Context) -> Path:
    return Path(str(context.node_config.get("state-path", Path.home() / ".polyfed" / "state")))


def _one_by_one(work: Work) -> Callable[[Worker, Sequence[Order]], Outcomes]:
    """Return what does the work for client after client."""

    def outcomes(worker: Worker, orders: Sequence[Order]) -> Outcomes:
        for order in orders:
            try:
                yield order, work(worker, order)
            except Exception as error:  # whatever one client does, the others' work counts
                yield order, error

    return outcomes


def _each_client(
    message: Message, context: Context, work: Callable[[Worker, Sequence[Order]], Outcomes]
) -> Message:
    started = time.perf_counter()
    worker = _worker(context)
    plan = message.content.config_records[PLAN]
    # The run's absolute folder where server and nodes share a disk, else a name under the node's own.
    folder = _state_root(context) / str(plan["state-path"])
    orders = _orders(message.content, folder)
    weighted_by = str(plan["weighted-by"])
    # A sum of compressed updates is compressed no more.
    adds_up = weighted_by and len(orders) > UPDATES_IN_A_SUM and not worker.config.compression
    replies = Replies(partial=ExactSum() if adds_up else None)
    with pinned(worker.config.threads):
        for order, outcome in work(worker, orders):
            if isinstance(outcome, Exception):
                replies.failures[order.client] = " ".join(f"{type(outcome).__name__}: {outcome}".split())
            else:
                replies.add(order.client, outcome.records, outcome.arrays, weighted_by)
    replies.seconds = time.perf_counter() - started
    return Message(replies.pack(), reply_to=message)


def _orders(content: RecordDict, folder: Path) -> list[Order]:
    """Unpack a message; weights that clients share are decoded once."""
    fixed = _decode(content.array_records[FIXED]) if FIXED in content else {}
    decoded: dict[int, dict[str, Tensor]] = {}
    orders = []
    for client, records in unpack(content):
        (record,) = records.array_records.values()
        (config,) = records.config_records.values()
        if id(record) not in decoded:
            decoded[id(record)] = _decode(record) | fixed
        server_round = int(str(config["server-round"]))
        orders.append(Order(client, server_round, decoded[id(record)], config, folder))
    return orders


def _decode(record: ArrayRecord) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in to_arrays(record).items()}
