"""Puts what the clients of an exchange replied together for the strategy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from numpy.typing import NDArray

from server.requests import Request, Wave
from server.tally import Sums
from server.traffic import Traffic
from strategies.rule import Arrays
from strategies.secure.masked_reply import Together
from strategies.wire.arrays import hold
from strategies.wire.exact_sum import ExactSum
from strategies.wire.reply import ARRAYS, METRICS, ClientFailure, ClientReply, NodeReply
from strategies.wire.reply_metrics import NUM_EXAMPLES, drop_partial_metrics, mean_of

Answer = tuple[ClientReply, Request]


@dataclass(frozen=True)
class Outcome:
    """What came of a wave."""

    wave: Wave
    parts: Sequence[NodeReply]
    answers: Sequence[Answer]
    """In client order."""
    failed: Sequence[tuple[ClientFailure, Request]]
    sums: Sums | None = None
    """What the clients trained, added up; the answers then hold no arrays."""
    together: Together | None = None
    """What the clients told in a masked sum; the answers then hold no metrics either."""
    again: bool = False
    """Whether it is of a round whose masked sum was opened before: no other clients can answer."""

    @staticmethod
    def of(
        wave: Wave,
        parts: Sequence[NodeReply],
        sums: Sums | None = None,
        together: Together | None = None,
        *,
        again: bool = False,
    ) -> "Outcome":
        """Return what the nodes' replies come to, with what each client was asked."""
        asked = wave.requests
        replies = sorted((reply for part in parts for reply in part.replies), key=lambda each: each.client)
        answers = [(reply, asked[reply.client]) for reply in replies]
        failed = [(failure, asked[failure.client]) for part in parts for failure in part.failures]
        return Outcome(wave, parts, answers, failed, sums, together, again)

    @property
    def num_examples(self) -> int:
        """Examples of the clients that answered, as often as they count."""
        if self.together is not None:
            return self.together.num_examples
        return int(sum(reply.weight(NUM_EXAMPLES) * len(to.messages) for reply, to in self.answers))

    def restored(self, training: bool) -> list[Message]:
        """Return the replies, one for each message; none of another kind of question."""
        if self.wave.training is not training:
            return []
        return [reply for answer in self.answers for reply in _restored(*answer)]


@dataclass(frozen=True)
class CohortResult:
    """What came back from the clients of one exchange."""

    replies: Sequence[Message] = ()
    """For the strategy, one for each of its messages, in client order: replies, and errors of clients that
    failed; or the mean of all replies, and the errors."""
    mean: Arrays | None = None
    """The weighted mean in the model's own types, where the strategy takes it as it is; the replies then hold
    no arrays."""
    clients: Sequence[int] = ()
    """Clients that answered, in order; one that was asked several times counts as often."""
    failures: Sequence[ClientFailure] = ()
    """Clients that failed, in order."""
    statistics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Means of what no optimizer trains, weighted by examples; empty where the model has none."""
    partial_metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics in training that only some clients have, and no strategy sees: means, weighted by examples."""
    num_examples: int = 0
    """Examples of the clients that answered."""
    bytes_down: int = 0
    """Bytes of arrays sent to nodes."""
    bytes_up: int = 0
    """Bytes of arrays received from nodes."""
    client_bytes_down: int = 0
    """Bytes of arrays that the clients received, each for itself."""
    client_bytes_up: int = 0
    """Bytes of arrays that the clients sent, before their nodes added any up."""
    left: Mapping[str, int] = field(default_factory=dict)
    """What left nodes, of `run_schema.LEAVES` -> bytes."""
    node_seconds: float = 0.0
    """Seconds that the busiest node computed."""
    seconds: float = 0.0
    """Seconds of the whole exchange."""
    again: bool = False
    """Whether a masked sum of the round was opened before the run was resumed."""

    @staticmethod
    def of(
        outcomes: Sequence[Outcome],
        weighted_by: str,
        traffic: Traffic,
        seconds: float,
        weight_types: Mapping[str, np.dtype[Any]] | None = None,
    ) -> "CohortResult":
        """Return what came of all waves; with `weighted_by`, the mean of those that trained.

        With `weight_types` the mean is to be the new weights, and is in no reply.
        """
        answers = [answer for outcome in outcomes for answer in outcome.answers]
        failed = [each for outcome in outcomes for each in outcome.failed]
        errors = [error for failure, request in failed for error in _errors(failure, request)]
        summed = [each for each in outcomes if weighted_by and each.wave.training and each.answers]
        if summed:
            # Even where no node had two clients: the mean must not be rounded in another way then.
            total, mean = _total(summed), None
            if weight_types is not None:
                mean = total.mean(weight_types)
            trained = [_reply(summed, weighted_by, total.mean() if mean is None else {})]
        else:
            mean = None
            trained = [reply for each in outcomes for reply in each.restored(training=True)]
        evaluated = [reply for each in outcomes for reply in each.restored(training=False)]
        partial = drop_partial_metrics([reply.content for reply in trained], NUM_EXAMPLES)
        replies = [*trained, *evaluated, *errors]
        if not summed:
            replies = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        return CohortResult(
            replies=replies,
            mean=mean,
            clients=sorted(reply.client for reply, request in answers for _ in request.messages),
            failures=[*traffic.failures, *sorted((each for each, _ in failed), key=lambda each: each.client)],
            num_examples=sum(outcome.num_examples for outcome in outcomes),
            statistics=_mean_statistics(outcomes),
            partial_metrics=partial,
            bytes_down=traffic.down,
            bytes_up=traffic.up,
            client_bytes_down=traffic.client_down,
            client_bytes_up=traffic.client_up,
            left=traffic.left,
            node_seconds=traffic.node_seconds,
            seconds=seconds,
            again=any(outcome.again for outcome in outcomes),
        )


def _mean_statistics(outcomes: Sequence[Outcome]) -> dict[str, NDArray[np.float64]]:
    """Return the mean of the statistics over all clients' examples; nothing where there are no examples."""
    total = ExactSum()
    for outcome in outcomes:
        if outcome.sums is not None:
            total.merge(outcome.sums.statistics)
        for part in outcome.parts:
            if part.statistics is not None:
                total.merge(part.statistics)
    return total.mean() if total.weight else {}


def _errors(failure: ClientFailure, request: Request) -> list[Message]:
    """Return an error reply to each message that asked a client which failed."""
    error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"client {failure.client}: {failure.error}")
    return [Message(error, reply_to=message) for message in request.messages]


def _total(outcomes: Sequence[Outcome]) -> ExactSum:
    """Return the sum of what all clients trained."""
    total = ExactSum()
    for outcome in outcomes:
        if outcome.sums is not None:
            total.merge(outcome.sums.total)
    return total


def _reply(outcomes: Sequence[Outcome], weighted_by: str, mean: Arrays) -> Message:
    """Return the weighted mean of all clients as if it were one client's reply."""
    answers = sorted(
        (answer for outcome in outcomes for answer in outcome.answers), key=lambda answer: answer[0].client
    )
    metrics = [reply.metrics for reply, to in answers for _ in to.messages]
    if (together := outcomes[0].together) is not None:
        content = RecordDict({ARRAYS: hold(mean), METRICS: MetricRecord({**together.metrics})})
        return Message(content, reply_to=answers[0][1].messages[0])
    return mean_reply(metrics, weighted_by, mean, answers[0][1].messages[0])


def mean_reply(
    replied: Sequence[Mapping[str, Any]], weighted_by: str, mean: Arrays, reply_to: Message
) -> Message:
    """Return a reply of the weighted mean, and of the means of the metrics that clients have replied."""
    content = RecordDict({ARRAYS: hold(mean), METRICS: mean_of(replied, weighted_by)})
    return Message(content, reply_to=reply_to)


def _restored(reply: ClientReply, request: Request) -> list[Message]:
    """Return a client's reply to each message that it answers."""
    # Strategies may put other records into a reply: each has its own.
    contents = [reply.content, *(RecordDict(dict(reply.content)) for _ in request.messages[1:])]
    return [Message(each, reply_to=message) for each, message in zip(contents, request.messages, strict=True)]
