"""The replies of clients that were trained side by side, made from their stacked weights at once.

They are the replies that `send_reply` would make one by one: what they have in common is done once.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import MetricRecord, RecordDict
from torch import Tensor

from clients.attacks import tampers
from clients.reply import array_of
from clients.worker import Worker
from strategies.rule import LocalRule
from strategies.wire.reply import METRICS, NodeReply
from strategies.wire.request import ClientRequest


def goes_out_as_trained(
    worker: Worker, request: ClientRequest, rules: Sequence[LocalRule], reply: NodeReply
) -> bool:
    """Return whether clients' weights are added up just as they were trained, and nothing is remembered."""
    return (
        reply.total is not None
        and not worker.config.compression
        and not worker.config.max_update_norm
        and not worker.federated.statistics
        and not worker.task.parts
        and worker.initial.keys() <= request.given.keys()
        and all(_only_steers(type(rule)) for rule in rules)
    )


def _only_steers(rule: type[LocalRule]) -> bool:
    """Return whether a rule changes gradients, and nothing that is replied or kept."""
    return rule.reply is LocalRule.reply and rule.close is LocalRule.close and not rule.kept


def reply_together(
    worker: Worker,
    requests: Sequence[ClientRequest],
    weights: Mapping[str, Tensor],
    metrics: Sequence[Mapping[str, float]],
    reply: NodeReply,
) -> list[int]:
    """Collect the replies of clients with these weights (R, ...) and metrics; return the places of others.

    Those are clients that attack, that count several times, whose weights are not finite or that lack what
    the strategy weighs by: theirs has to be made, or refused, one by one.
    """
    arrays = {name: array_of(weights[name]) for name in worker.federated.parameters}
    fit = np.ones(len(requests), bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for array in arrays.values():
            # One pass for a sum; what is finite may still add up to something that is not.
            fit &= np.isfinite(array.reshape(len(array), -1).sum(1))
    for place, request in enumerate(requests):
        weighed = reply.weighted_by in metrics[place]
        fit[place] &= weighed and request.times == 1 and not tampers(worker, request.client)
    places = np.flatnonzero(fit).tolist()
    if len(places) < len(requests):
        arrays = {name: array[places] for name, array in arrays.items()}
    contents = [RecordDict({METRICS: MetricRecord({**metrics[place]})}) for place in places]
    if places:
        reply.add_together([requests[place].client for place in places], contents, arrays)
    return np.flatnonzero(~fit).tolist()
