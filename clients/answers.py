"""What a node answers to a message: what it is, or what its clients did.

Flower's ClientApp imports this where it does the work itself, and a node's resident worker keeps it imported.
"""

import gc
import time
from logging import INFO

from flwr.app import ConfigRecord, Context, MessageType, RecordDict

from clients.belief import believed
from clients.masking import Masking, check_allowed
from clients.node_config import NodeConfig, place_of
from clients.node_work import NodeWork
from clients.old_states import drop_old_states
from clients.secure_stages import answer_stage, is_secure
from clients.worker import Load, load_clients, load_worker, tokens_of, worker_of
from models.core.config import TaskConfig, read
from models.core.log import log
from models.core.machine import described
from models.core.tracebacks import line_of, traceback_of
from models.data.agreed_labels import labelled
from models.data.datasets import load_dataset
from models.data.described import shapes_of_examples
from models.data.fingerprint import data_sha256
from models.data.labels import labels_of
from models.state import describe_state
from strategies.wire.exact_sum import ExactSum
from strategies.wire.node import DataDescription, NodeDescription, NodeError, debugged
from strategies.wire.plan import read_groups, record_at
from strategies.wire.records import PLAN
from strategies.wire.reply import NodeReply
from strategies.wire.vocabulary import Vocabulary


def answer(content: RecordDict, message_type: str, context: Context, spent: float = 0.0) -> RecordDict:
    """Return the content of the reply to a message, for which `spent` seconds of its time are gone."""
    if message_type.partition(".")[0] == MessageType.QUERY:
        if is_secure(content):
            return answer_stage(content, context)
        return description_of(context, content=content)
    started = time.perf_counter()
    try:
        check_allowed(content, NodeConfig.from_flower(context.node_config))
        if is_secure(content):
            return _masked(content, message_type, context, spent)
        reply = NodeWork.begin(content, message_type, context, spent=spent).do()
        reply.seconds = time.perf_counter() - started
    except Exception as error:  # of the node, so of each of its clients
        reply = NodeReply(debug=debugged(context.node_config))
        for client in _clients_of(content, error):
            reply.fail(client, error)
    return reply.pack()


def description_of(
    context: Context, load: Load = load_worker, content: RecordDict | None = None
) -> RecordDict:
    """Return what this node says of itself, packed; the question may say what it is to read its data with."""
    try:
        return _description(context, load, Vocabulary.unpack(content or RecordDict())).pack()
    except Exception as error:  # Flower would drop its traceback on the way
        if debugged(context.node_config):
            raise
        return NodeError(line_of(error), traceback_of(error), place_of(context.node_config)).pack()


def forget() -> None:
    """Let go of what this process keeps of earlier runs: their data may have changed on the disk since."""
    load_worker.cache_clear()
    load_clients.cache_clear()
    load_dataset.cache_clear()
    gc.collect()  # before the next run's are loaded


def _description(context: Context, load: Load, vocabulary: Vocabulary) -> NodeDescription:
    node = NodeConfig.from_flower(context.node_config)
    partition_id, num_partitions = node.place
    config = labelled(believed(read(TaskConfig, context.run_config), node), vocabulary.labels)
    worker = worker_of(config, node, load, tokens_of(vocabulary))
    if node.keep_state_days is not None:
        for run in drop_old_states(node.state_root, node.keep_state_days):
            log(INFO, "Removed what clients remembered of %s, by keep-state-days", run)
    return NodeDescription(
        partition_id=partition_id,
        num_partitions=num_partitions,
        own_data=bool(node.data_path),
        clients=node.clients,
        data="" if node.data_path else data_sha256(worker.dataset),  # its own is nobody's to recognise
        state=(*describe_state(worker.initial), *worker.task.agreed),
        machine=described(worker.config.threads, worker.device),
        examples=DataDescription(
            kind=worker.dataset.kind,
            num_examples=sum(len(each.dataset.train) for each in worker.apart.values() or [worker]),
            columns=shapes_of_examples(worker.dataset),
            classes=labels_of(worker.dataset),
        ),
    )


def _masked(content: RecordDict, message_type: str, context: Context, spent: float) -> RecordDict:
    """Train as asked, and return the sum alone, masked; raise ValueError where that is not what is asked."""
    started, masking = time.perf_counter(), Masking(content, context)
    work = NodeWork.begin(masking.plain, message_type, context, spent=spent)
    if message_type.partition(".")[0] != MessageType.TRAIN or not work.info.weighted_by:
        raise ValueError("secure aggregation is of training whose replies are averaged")
    # Even of one client: what is masked is a sum.
    reply = NodeReply(total=ExactSum(), weighted_by=work.info.weighted_by, debug=work.debug)
    reply = work.do(reply=reply)
    reply.seconds = time.perf_counter() - started
    return masking.reply(reply, work.info, work.states.folder, work.requests)


def _clients_of(content: RecordDict, error: Exception) -> list[int]:
    """Return the clients that a message names; raise the error where they cannot be told."""
    try:
        return [
            client
            for layout in read_groups(record_at(content, PLAN, ConfigRecord))
            for client in layout.clients
        ]
    except ValueError:
        raise error from None
