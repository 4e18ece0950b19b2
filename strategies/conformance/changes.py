"""What can happen to the replies of a round on their way to the strategy."""

import numpy as np
from flwr.app import Error, RecordDict

from strategies.conformance.federation import ClientReplies
from strategies.wire.arrays import to_arrays, to_record
from strategies.wire.exact_sum import ExactSum
from strategies.wire.reply_metrics import add_update, mean_metrics


def backwards(replies: ClientReplies) -> ClientReplies:
    """The last client's reply comes first."""
    return dict(reversed(replies.items()))


def failure() -> Error:
    """Return how a client's failure reaches the strategy."""
    return Error(2, "client 0: ValueError: a bad batch")


def first_fails(replies: ClientReplies) -> ClientReplies:
    """The first client fails."""
    return replies | {next(iter(replies)): failure()}


def all_fail(replies: ClientReplies) -> ClientReplies:
    """Every client fails."""
    return dict.fromkeys(replies, failure())


def none_replies(replies: ClientReplies) -> ClientReplies:
    """Not even errors come."""
    return {}


def _first(replies: ClientReplies) -> RecordDict:
    content = next(iter(replies.values()))
    assert isinstance(content, RecordDict)
    return content


def first_is_not_finite(replies: ClientReplies) -> ClientReplies:
    """The first client's arrays are NaN."""
    content = _first(replies)
    arrays = to_arrays(content.array_records["arrays"])
    content["arrays"] = to_record({name: np.full_like(array, np.nan) for name, array in arrays.items()})
    return replies


def first_has_no_examples(replies: ClientReplies) -> ClientReplies:
    """The first client trained on nothing."""
    _first(replies).metric_records["metrics"]["num-examples"] = 0
    return replies


def summed(replies: ClientReplies, weighted_by: str = "num-examples") -> ClientReplies:
    """Return one reply for all clients that answered, as the server makes of nodes' sums, and the errors."""
    contents = {client: each for client, each in replies.items() if isinstance(each, RecordDict)}
    total = ExactSum()
    for content in contents.values():
        add_update(total, content, weighted_by)
    metrics = mean_metrics(list(contents.values()), weighted_by)
    mean = RecordDict({"arrays": to_record(total.mean()), "metrics": metrics})
    errors = {client: each for client, each in replies.items() if client not in contents}
    return {next(iter(contents)): mean, **errors}


def first_fails_and_summed(replies: ClientReplies, weighted_by: str = "num-examples") -> ClientReplies:
    """The first client fails, and nodes add up the others."""
    return summed(first_fails(replies), weighted_by)
