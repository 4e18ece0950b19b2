"""The tail of every client's training, whichever engine trained it: from the trained model to its reply.

Before an update leaves a client it goes through `outgoing`, one list of steps in their order. Then the
client remembers what stays with it, and only then is its reply collected: a client that cannot remember
fails, and has not replied. Statistics, which no optimizer trains, take no such way: they are averaged as they
are, beside the strategy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from torch import Tensor

from clients.attacks import tamper, tampers
from clients.local_result import LocalResult
from clients.parts import left_as_sent
from clients.state import ClientState, ClientStates, ModelMemory, own_state
from clients.worker import Worker
from models.core.seeds import generator_for
from strategies.privacy.clipping import bounded
from strategies.rule import WEIGHT, Arrays, LocalRule, aux_arrays
from strategies.wire.arrays import hold, to_record
from strategies.wire.compression import CODECS, compress
from strategies.wire.records import check_forms, forms_of, num_value_bytes
from strategies.wire.reply import ARRAYS, METRICS, NodeReply
from strategies.wire.request import ClientRequest


@dataclass(frozen=True)
class Update:
    """What a client replies, on its way out."""

    arrays: Arrays
    """Its weights, and what goes beside them; empty once they are encoded."""
    metrics: Mapping[str, float]
    encoded: Mapping[str, ArrayRecord] = field(default_factory=dict)
    """The records of a compressed update."""
    residual: Mapping[str, Tensor] = field(default_factory=dict)
    """What compression left out."""
    meant: Arrays = field(default_factory=dict)
    """The arrays before rules and compression changed them."""
    decoded: Arrays = field(default_factory=dict)
    """What the server will read of the encoded arrays; for rules that ask for it, and to be added up."""
    num_bytes: int | None = None
    """Size of the encoded arrays where the node adds up what is read of them; None is that of the arrays."""


Step = Callable[[Update], Update]


def outgoing(
    worker: Worker, request: ClientRequest, rules: Sequence[LocalRule], state: ClientState, adds_up: bool
) -> list[Step]:
    """Return what happens to an update before it leaves, in this order; `adds_up` whether its node does.

    A rule may clip or add noise: those of a private strategy come last among its rules.
    """
    steps: list[Step] = []
    if tampers(worker, request.client):
        steps.append(partial(tampered, worker, request))
    steps.append(finite)
    if rules:
        noise = generator_for(worker.config.seed, "reply", request.info.server_round, request.client)
        steps += [partial(rule_replies, rule, request, noise) for rule in rules]
        steps.append(partial(well_formed, worker, request))
    if worker.config.compression:
        steps.append(partial(compressed, worker, request, state.residual, adds_up or _settles(rules)))
        if adds_up:
            steps.append(as_decoded)
    if worker.config.max_update_norm and (adds_up or _settles(rules)):
        steps.append(partial(bounded_as_read, request, worker.config.max_update_norm, adds_up))
    return steps


def send_reply(
    worker: Worker,
    request: ClientRequest,
    result: LocalResult,
    rules: Sequence[LocalRule],
    before: ClientState,
    states: ClientStates,
    reply: NodeReply,
) -> None:
    """Take an update through `outgoing`, remember what stays with the client, and collect its reply."""
    result = left_as_sent(worker, request, result)
    arrays: Arrays = {name: array_of(result.state[name]) for name in worker.federated.parameters}
    for kind, tensors in result.aux.items():
        own_kind = {name: array_of(tensor) for name, tensor in tensors.items()}
        arrays = {**arrays, **aux_arrays(kind, own_kind)}
    statistics = {name: array_of(result.state[name]) for name in worker.federated.statistics}
    check_finite(statistics)
    update = Update(arrays, result.metrics)
    for step in outgoing(worker, request, rules, before, reply.total is not None):
        update = step(update)
    memory = settled(rules, result.rule, update) if _settles(rules) else result.rule
    kept = own_state(result.state, worker.initial, request.given.keys(), worker.federated.all)
    after = ClientState(ModelMemory(kept, result.optimizer, memory), result.personal, update.residual)
    saved = None
    if after or before:
        info = request.info
        saved = states.save(request.client, info.server_round, after, info.restorable_round)
    content = RecordDict({METRICS: MetricRecord({**update.metrics}), **update.encoded})
    reply.add(
        request.client, content, update.arrays or None, statistics, request.times, saved, update.num_bytes
    )


def tampered(worker: Worker, request: ClientRequest, update: Update) -> Update:
    """Put what an attacker sends in place of its weights."""
    weights = {name: torch.from_numpy(update.arrays[name]) for name in worker.federated.parameters}
    wrong = tamper(worker, request, weights)
    return replace(update, arrays={**update.arrays, **{name: each.numpy() for name, each in wrong.items()}})


def finite(update: Update) -> Update:
    """Raise FloatingPointError for an array that is not finite; the last step's loss was still fine."""
    check_finite(update.arrays)
    return replace(update, meant=update.arrays)


def rule_replies(
    rule: LocalRule, request: ClientRequest, generator: torch.Generator, update: Update
) -> Update:
    """Let a local rule change the reply, and add metrics to it."""
    arrays, more = rule.reply(update.arrays, request.received, generator)
    return replace(update, arrays=arrays, metrics={**update.metrics, **more})


def well_formed(worker: Worker, request: ClientRequest, update: Update) -> Update:
    """Raise for what rules have made unfit to be added to other clients' arrays: it is this one's failure."""
    weights = {name: request.weights[name].numpy() for name in worker.federated.parameters}
    check_forms(update.arrays, forms_of(weights))
    if update.arrays is not update.meant:
        check_finite(update.arrays)
    return update


def compressed(
    worker: Worker, request: ClientRequest, residual: Mapping[str, Tensor], decodes: bool, update: Update
) -> Update:
    """Encode the arrays; what is left out is the client's to remember."""
    config = worker.config
    codec = CODECS[config.compression]
    generator = generator_for(config.seed, "compress", request.info.server_round, request.client)
    received = request.received
    encoded = compress(
        codec,
        config.compression_ratio,
        update.arrays,
        received,
        {name: tensor.numpy() for name, tensor in residual.items()},
        generator,
    )
    return replace(
        update,
        arrays={},
        encoded={
            key: to_record(parts) if key == ARRAYS else hold(parts) for key, parts in encoded.records.items()
        },
        residual={name: torch.from_numpy(array) for name, array in encoded.residual.items()},
        decoded=encoded.decoded(codec, update.arrays, received) if decodes else {},
    )


def as_decoded(update: Update) -> Update:
    """Let the node add up what the server would read: a sum does not depend on who has decoded its terms."""
    check_finite(update.decoded)
    size = sum(num_value_bytes(record) for record in update.encoded.values())
    return replace(update, arrays=update.decoded, encoded={}, num_bytes=size)


def bounded_as_read(request: ClientRequest, norm: float, adds_up: bool, update: Update) -> Update:
    """Clip what the server will read, as it does itself where a client's reply comes by itself.

    What is added up is clipped for it; else the client only learns what will be left of its update.
    """
    read = bounded(update.decoded or update.arrays, request.received, norm)
    return replace(update, arrays=read if adds_up else update.arrays, decoded=read)


def settled(rules: Sequence[LocalRule], kept: Mapping[str, Tensor], update: Update) -> Mapping[str, Tensor]:
    """Return what the client keeps for its rules, by KIND/NAME, given what the server will read."""
    read = update.decoded or update.arrays
    if read is update.meant:
        return kept
    lost: dict[str, dict[str, Tensor]] = {}
    for key, array in update.meant.items():
        kind, _, name = key.rpartition("/")
        lost.setdefault(name, {})[kind or WEIGHT] = torch.from_numpy(np.asarray(read[key] - array))
    memory = dict(kept)
    for rule in rules:
        for name, errors in lost.items():
            own = {kind: memory[f"{kind}/{name}"].cpu() for kind in rule.kept if f"{kind}/{name}" in memory}
            if own:
                rule.settle(own, errors)
                memory |= {f"{kind}/{name}": tensor for kind, tensor in own.items()}
    return memory


def _settles(rules: Sequence[LocalRule]) -> bool:
    """Return whether a rule goes by what the server reads."""
    return any(type(rule).settle is not LocalRule.settle for rule in rules)


def array_of(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array in the order of its axes; of the same memory where that has it."""
    array: np.ndarray = tensor.cpu().contiguous().numpy()
    return array


def check_finite(arrays: Arrays) -> None:
    """Raise FloatingPointError for an array that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in arrays.items():
            # One pass for a sum; what is finite may still add up to something that is not.
            if not np.isfinite(array.sum()) and not np.isfinite(array).all():
                raise FloatingPointError(f"{name} is not finite after training: lower the learning rate")
