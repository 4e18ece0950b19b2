"""What a node replies, checked before anybody computes with it: nodes may send anything.

What is wrong with one client's reply is the failure of that client. What is wrong with numbers that a node
sends for all of its clients together is the failure of each of them. Nothing else ends with it.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from numpy.typing import NDArray

from models.core.tracebacks import line_of, traceback_of
from models.task import Metrics
from server.requests import Request, Wave
from server.tally import fail_others, layout_of, usual_of
from strategies.rule import PERSONAL, Arrays
from strategies.wire.arrays import record_of, views
from strategies.wire.compression import decompress
from strategies.wire.exact_sum import BLOCK, ExactSum
from strategies.wire.records import Forms, check_forms, forms_of, records_of
from strategies.wire.reply import (
    ARRAYS,
    NUM_EXAMPLES,
    SUMS,
    ClientFailure,
    ClientReply,
    NodeReply,
    check_weight,
    weight_among,
    weight_of,
)

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(arrays: Arrays) -> Shapes:
    """Return the shape of each array."""
    return {name: array.shape for name, array in arrays.items()}


@dataclass(frozen=True)
class Expected:
    """What every client must tell beside its weights."""

    weights: Collection[str] = ()
    """Metrics in training that the strategy weights clients by."""
    losses: Collection[str] = ()
    """Metrics in training that it computes with."""
    ratios: Callable[[Metrics], Mapping[str, float]] | None = None
    """Turns the sums of an evaluation into metrics; None is that nobody looks at them."""


def check_reply(
    reply: NodeReply,
    wave: Wave,
    clients: Sequence[int],
    weighted_by: str,
    statistics: Shapes,
    names: Collection[str],
    expected: Expected,
    take: Callable[[ClientReply], ClientReply] = lambda reply: reply,
) -> NodeReply:
    """Return the reply with its updates decompressed, and with failures for clients whose own is malformed.

    `statistics` are those of the model, and `names` its weights; all that were sent unless given. `take` gets
    each client's reply as soon as it is decompressed, and returns what is kept of it. Raises ValueError for
    what concerns the whole node.
    """
    _check_answered(reply, clients)
    if not (0 <= reply.seconds < math.inf and reply.client_bytes >= 0):
        raise ValueError(f"it says {reply.seconds} seconds and {reply.client_bytes} bytes")
    found = reply.statistics.shapes if reply.statistics else {}
    if found != (statistics if reply.replies else {}):
        raise ValueError(f"it sends statistics {sorted(found)}, and the model has {sorted(statistics)}")
    summed = reply.total is not None or reply.statistics is not None
    replies, failures = [], list(reply.failures)
    weights = sorted({NUM_EXAMPLES, *expected.weights, weighted_by} - {""})
    for each in reply.replies:
        try:
            if wave.training:
                _check_train_metrics(each.metrics, weights, expected)
                if reply.total is None:
                    content = _checked_arrays(each.content, wave.requests[each.client], names)
                    replies.append(take(ClientReply(each.client, content)))
                    continue
                if each.sends_arrays:
                    raise ValueError("its arrays come twice, in a sum and by themselves")
            else:
                _check_evaluation(each.content, expected)
            replies.append(each)
        except Exception as error:  # a node may send anything
            if summed:
                raise ValueError(f"client {each.client}: {line_of(error)}") from error
            why = f"its reply cannot be used: {line_of(error)}"
            failures.append(ClientFailure(each.client, why, traceback_of(error)))
    if reply.total is not None:
        forms = _forms(wave.requests[clients[0]], names)
        _check_total(reply.total, _weights(replies, wave, weighted_by), forms)
    if reply.statistics is not None and sorted(reply.statistics.weights) != _weights(
        replies, wave, NUM_EXAMPLES
    ):
        raise ValueError("its statistics are weighted by other numbers than its clients' examples")
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


def _check_answered(reply: NodeReply, clients: Sequence[int]) -> None:
    """Raise ValueError where a node does not answer for each of its clients, and for no other, once."""
    answered = [each.client for each in reply.replies] + [each.client for each in reply.failures]
    if not all(type(client) is int for client in answered) or sorted(answered) != sorted(clients):
        raise ValueError(f"it answers for clients {answered}, and was asked for {sorted(clients)}")
    if more := reply.states.keys() - {each.client for each in reply.replies}:
        raise ValueError(f"it has states of clients {sorted(more)}, which have not replied")


def _check_train_metrics(metrics: Mapping[str, Any], weights: Sequence[str], expected: Expected) -> None:
    for name in weights:
        check_weight(name, weight_among(metrics, name))
    for name in expected.losses:
        if not math.isfinite(weight_among(metrics, name)):
            raise ValueError(f"its {name} is {metrics[name]}")


def _check_evaluation(content: RecordDict, expected: Expected) -> None:
    check_weight(NUM_EXAMPLES, weight_of(content, NUM_EXAMPLES))
    if expected.ratios is None:
        return
    for prefix in ("", PERSONAL):
        if prefix and prefix + SUMS not in content:
            continue
        sums = {name: _pair(name, pair) for name, pair in content.config_records[prefix + SUMS].items()}
        if sums:
            expected.ratios(sums)


def _pair(name: str, pair: Any) -> tuple[float, float]:
    """Return a sum of a metric and its weight."""
    total, weight = map(float, pair)
    check_weight(name, weight)
    if not math.isfinite(total):
        raise ValueError(f"its sum of {name} is {total:g}")
    return total, weight


def _checked_arrays(content: RecordDict, request: Request, names: Collection[str]) -> RecordDict:
    """Return what a client replies without compression."""
    (sent,) = records_of(request.content, ArrayRecord)
    content = decompress(content, sent)
    (record,) = records_of(content, ArrayRecord)
    arrays, forms = views(record), _forms(request, names)
    check_forms(arrays, forms)
    for name, array in arrays.items():
        form = forms[name.rpartition("/")[2]]
        with np.errstate(over="ignore", invalid="ignore"):
            fits = array if array.dtype == form.dtype else array.astype(form.dtype)
            # One pass for a sum; what is finite may still add up to something that is not.
            if not np.isfinite(fits.sum()) and not np.isfinite(fits).all():
                raise ValueError(f"{name} is not finite")
    order = list(dict.fromkeys([*forms, *arrays]))
    if list(arrays) == order:
        return content
    # Flower's strategies go by the order of weights, and not all of them by their names.
    others = {key: each for key, each in content.items() if each is not record}
    ordered = {name: record[name] for name in order}
    return RecordDict({ARRAYS: record_of(ordered), **others})


def _forms(request: Request, names: Collection[str]) -> Forms:
    (sent,) = records_of(request.content, ArrayRecord)
    return forms_of({name: sent[name] for name in names or [key for key in sent if "/" not in key]})


def _weights(replies: Sequence[ClientReply], wave: Wave, weighted_by: str) -> list[float]:
    """Return by which numbers a node weights its clients, in order."""
    return sorted(each.weight(weighted_by) for each in replies for _ in wave.requests[each.client].messages)


def _check_total(total: ExactSum, weights: list[float], forms: Forms) -> None:
    """Raise ValueError for a sum that is not one of such weights, or beyond all that they can come to."""
    if sorted(total.weights) != weights:
        raise ValueError("its sum is weighted by other numbers than its clients tell")
    high = total.by_name(total.high)
    check_forms(high, forms)
    most = {name: total.weight * float(np.finfo(form.dtype).max) for name, form in forms.items()}
    for key, array in high.items():
        if _largest(array.reshape(-1)) > most[key.rpartition("/")[2]]:
            raise ValueError(f"its sum of {key} is beyond what its clients can have")
    for start, low in total.low.items():
        if (np.abs(low) > np.abs(total.high[start : start + low.size]) * 2.0**-52).any():
            raise ValueError("the parts of its sum overlap")
    if total.rest.size and np.abs(total.rest[1]).max() > max(most.values()):
        raise ValueError("the rest of its sum is beyond what its clients can have")


def _largest(numbers: NDArray[np.float64]) -> float:
    """Return the largest magnitude among these numbers, block by block, so that they are fetched once."""
    blocks = (numbers[start : start + BLOCK] for start in range(0, numbers.size, BLOCK))
    return max((max(float(block.max()), -float(block.min())) for block in blocks), default=0.0)
