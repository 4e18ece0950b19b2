"""What a node replies, read and checked before anybody computes with it: nodes may send anything.

`checked_reply` is the one place: it goes by what the server has asked, and by the records alone. What is
wrong with one client's reply is the failure of that client. What is wrong with what a node says of all its
clients together is the failure of each of them. Nothing else ends with it.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from models.core.errors import shown
from models.core.tracebacks import line_of, traceback_of
from server.metric_checks import Expected, check_metrics, check_sums, check_train_metrics
from server.requests import Request, Wave
from server.sum_checks import check_norm, check_statistics, check_total
from server.tally import fail_others, layout_of, usual_of
from strategies.privacy.clipping import bounded
from strategies.rule import PERSONAL, Arrays
from strategies.wire.arrays import HeldArray, hold, record_of, views
from strategies.wire.compression import CODECS, decoded
from strategies.wire.records import Forms, check_forms, forms_of, listed, records_of
from strategies.wire.reply import ARRAYS, METRICS, SUMS, ClientFailure, ClientReply, NodeReply
from strategies.wire.reply_metrics import NUM_EXAMPLES, check_weight, weight_among

MOST_KINDS = 16
"""Kinds of aux tensors."""


@dataclass(frozen=True)
class Asked:
    """What one node was asked for."""

    wave: Wave
    clients: Sequence[int]
    """Those of the wave that it hosts."""
    weighted_by: str = ""
    """The metric by which it may add up its clients' arrays; "" is that it may not."""
    statistics: Forms = field(default_factory=dict)
    """Of the model's statistics, which come in a sum."""
    names: Collection[str] = ()
    """The weights; () is all that was sent."""
    expected: Expected = field(default_factory=Expected)

    @property
    def forms(self) -> Forms:
        """The weights' shapes and types; they are the same in all requests."""
        sent = _sent(self.wave.requests[self.clients[0]])
        return forms_of({name: sent[name] for name in self.names or [key for key in sent if "/" not in key]})

    def times(self, client: int) -> int:
        """How often a client counts."""
        return len(self.wave.requests[client].messages)


def checked_reply(
    content: RecordDict, asked: Asked, take: Callable[[ClientReply], ClientReply] = lambda reply: reply
) -> NodeReply:
    """Return what a node replies, with failures for clients whose own reply is malformed.

    `take` gets each client's reply as soon as it is decompressed, and returns what is kept of it. Raises
    ValueError for what concerns the whole node.
    """
    reply = NodeReply.unpack(content, len(asked.clients))
    check_answered(reply, asked)
    summed = reply.total is not None or reply.statistics is not None
    replies, failures, forms = [], list(reply.failures), asked.forms
    for each in reply.replies:
        try:
            replies.append(_checked_client(each, reply, asked, forms, take))
        except Exception as error:  # a node may send anything
            if summed:
                raise ValueError(f"client {each.client}: {_why(error)}") from error
            why = f"its reply cannot be used: {_why(error)}"
            failures.append(ClientFailure(each.client, why, traceback_of(error)))
    if reply.total is not None:
        check_total(reply.total, _weights(replies, asked, asked.weighted_by), forms)
        check_aux(reply.total.shapes, asked.expected)
        if asked.expected.max_update_norm < math.inf:
            check_norm(reply.total, _starts(replies, asked), asked.expected.max_update_norm)
    statistics = asked.statistics if reply.replies else {}
    check_statistics(reply.statistics, _weights(replies, asked, NUM_EXAMPLES), statistics)
    left = {each.client for each in replies}
    states = {client: state for client, state in reply.states.items() if client in left}
    return replace(reply, replies=replies, failures=failures, states=states)


def agreeing(parts: Sequence[NodeReply]) -> list[NodeReply]:
    """Return the replies to a training, in which clients that reply other arrays than most do have failed."""
    layouts = [[layout_of(each) for each in part.replies] for part in parts]
    usual = usual_of([layout for each in layouts for layout in each])
    checked = []
    for part, own in zip(parts, layouts, strict=True):
        whole = part.statistics is not None  # in which they cannot be told apart
        settled = fail_others(part, own, usual, whole=whole)
        checked.append(part if settled is part else replace(settled, statistics=None))
    return checked


def _why(error: Exception) -> str:
    """Return what is wrong; our own words stand for themselves."""
    return str(error) if type(error) is ValueError else line_of(error)


def check_answered(reply: NodeReply, asked: Asked) -> None:
    """Raise ValueError where a node does not answer for each of its clients, and for no other, once.

    And for sums that nobody has asked for.
    """
    answered = [each.client for each in reply.replies] + [each.client for each in reply.failures]
    if not all(type(client) is int for client in answered) or sorted(answered) != sorted(asked.clients):
        raise ValueError(
            f"it answers for clients {shown(answered)}, and was asked for {shown(sorted(asked.clients))}"
        )
    if more := reply.states.keys() - {each.client for each in reply.replies}:
        raise ValueError(f"it has states of clients {shown(sorted(more, key=str))}, which have not replied")
    if reply.total is not None and not (asked.weighted_by and asked.wave.training and reply.replies):
        raise ValueError("it sends a sum, and was asked for every client's own reply")


def _checked_client(
    each: ClientReply,
    reply: NodeReply,
    asked: Asked,
    forms: Forms,
    take: Callable[[ClientReply], ClientReply],
) -> ClientReply:
    """Return what is kept of one client's reply; raise ValueError for one that cannot be used."""
    metrics, others = each.parts()
    if metrics is None:
        raise ValueError("it tells no metrics")
    if not asked.wave.training:
        _check_records(others, {SUMS, PERSONAL + SUMS}, ConfigRecord)
        check_weight(NUM_EXAMPLES, weight_among(metrics, NUM_EXAMPLES))
        check_metrics(metrics)
        check_sums(others, asked.expected)
        return each
    check_train_metrics(metrics, asked.expected, asked.weighted_by)
    if reply.total is not None:
        if others:
            raise ValueError(f"its records {listed(others)} come beside a sum")
        return each
    codec = CODECS[asked.expected.compression].keys if asked.expected.compression else ()
    _check_records(others, {ARRAYS, *codec}, ArrayRecord)
    # Before they are decoded: each name costs as much memory as its weight, and a few bytes of the message.
    check_aux([name for record in others.values() for name in record], asked.expected)
    sent = _sent(asked.wave.requests[each.client])
    record = decoded(others, sent) if codec else others[ARRAYS]
    content: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {
        ARRAYS: _checked_arrays(record, sent, asked.expected, forms),
        METRICS: MetricRecord({**metrics}),
    }
    return take(ClientReply(each.client, RecordDict(content)))


def _check_records(others: Mapping[str, Any], allowed: Collection[str], kind: type) -> None:
    """Raise ValueError for records of other names or of another kind."""
    if not others:
        raise ValueError(f"it has no records beside its metrics, such as {min(allowed)}")
    for name, record in others.items():
        if name not in allowed or not isinstance(record, kind):
            said = f"a record {name!r:.40} of type {type(record).__name__}"
            raise ValueError(f"it has {said}, and may have {', '.join(sorted(allowed))} of {kind.__name__}")


def _checked_arrays(record: ArrayRecord, sent: ArrayRecord, expected: Expected, forms: Forms) -> ArrayRecord:
    """Return what a client replies, in the order of the weights."""
    arrays: Arrays = views(record)
    check_forms(arrays, forms)
    for name, array in arrays.items():
        form = forms[name.rpartition("/")[2]]
        with np.errstate(over="ignore", invalid="ignore"):
            fits = array if array.dtype == form.dtype else array.astype(form.dtype)
            # One pass for a sum; what is finite may still add up to something that is not.
            if not np.isfinite(fits.sum()) and not np.isfinite(fits).all():
                raise ValueError(f"{name} is not finite")
    if expected.max_update_norm < math.inf:
        short = bounded(arrays, views(sent), expected.max_update_norm)
        record, arrays = (record, arrays) if short is arrays else (hold(short), short)
    # Flower's strategies go by the order of weights, and not all of them by their names.
    order = list(dict.fromkeys([*forms, *arrays]))
    # What was read of bytes is kept as it was read: nobody reads them once more.
    as_read = all(isinstance(each, HeldArray) for each in record.values())
    if list(arrays) == order and as_read:
        return record
    if as_read:
        return record_of({name: record[name] for name in order})
    return hold({name: arrays[name] for name in order})


def check_aux(names: Collection[str], expected: Expected) -> None:
    """Raise ValueError for aux tensors where rules reply none, and for more kinds of them than rules have."""
    beside = [name for name in names if "/" in name]
    if beside and not expected.aux:
        raise ValueError(f"it replies {beside[0][:80]} beside the weights, which nobody has asked for")
    if len(kinds := {name.rpartition("/")[0] for name in beside}) > MOST_KINDS:
        raise ValueError(f"it replies {len(kinds)} kinds of aux tensors, and may reply {MOST_KINDS}")


def _sent(request: Request) -> ArrayRecord:
    (sent,) = records_of(request.content, ArrayRecord)
    return sent


def _weights(replies: Sequence[ClientReply], asked: Asked, weighted_by: str) -> list[float]:
    """Return by which numbers a node weights its clients, in order."""
    return sorted(each.weight(weighted_by) for each in replies for _ in range(asked.times(each.client)))


def _starts(replies: Sequence[ClientReply], asked: Asked) -> list[tuple[Any, float]]:
    """Return what the clients of a node were sent, and the weight of those that were sent the same."""
    sent, weights = {}, dict[int, float]()
    for each in replies:
        record = _sent(asked.wave.requests[each.client])
        sent[id(record)] = record
        weight = each.weight(asked.weighted_by) * asked.times(each.client)
        weights[id(record)] = weights.get(id(record), 0.0) + weight
    return [(views(record), weights[key]) for key, record in sent.items()]
