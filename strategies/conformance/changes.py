"""What can happen to the answers of a round on their way to the strategy."""

import numpy as np
from flwr.app import Error, RecordDict

from strategies.conformance.federation import Answers
from strategies.wire.exact_sum import ExactSum
from strategies.wire.records import to_arrays, to_record
from strategies.wire.reply import add_update, mean_metrics


def backwards(answers: Answers) -> Answers:
    """The last client's reply comes first."""
    return dict(reversed(answers.items()))


def failure() -> Error:
    """Return how a client's failure reaches the strategy."""
    return Error(2, "client 0: ValueError: a bad batch")


def first_fails(answers: Answers) -> Answers:
    """The first client fails."""
    return answers | {next(iter(answers)): failure()}


def all_fail(answers: Answers) -> Answers:
    """Every client fails."""
    return dict.fromkeys(answers, failure())


def none_replies(answers: Answers) -> Answers:
    """Not even errors come."""
    return {}


def _first(answers: Answers) -> RecordDict:
    content = next(iter(answers.values()))
    assert isinstance(content, RecordDict)
    return content


def first_is_not_finite(answers: Answers) -> Answers:
    """The first client's arrays are NaN."""
    content = _first(answers)
    arrays = to_arrays(content.array_records["arrays"])
    content["arrays"] = to_record({name: np.full_like(array, np.nan) for name, array in arrays.items()})
    return answers


def first_has_no_examples(answers: Answers) -> Answers:
    """The first client trained on nothing."""
    _first(answers).metric_records["metrics"]["num-examples"] = 0
    return answers


def summed(answers: Answers, weighted_by: str = "num-examples") -> Answers:
    """Return one reply for all clients that answered, as the server makes of nodes' sums, and the errors."""
    contents = {client: each for client, each in answers.items() if isinstance(each, RecordDict)}
    total = ExactSum()
    for content in contents.values():
        add_update(total, content, weighted_by)
    metrics = mean_metrics(list(contents.values()), weighted_by)
    mean = RecordDict({"arrays": to_record(total.mean()), "metrics": metrics})
    errors = {client: each for client, each in answers.items() if client not in contents}
    return {next(iter(contents)): mean, **errors}


def first_fails_and_summed(answers: Answers, weighted_by: str = "num-examples") -> Answers:
    """The first client fails, and nodes add up the others."""
    return summed(first_fails(answers), weighted_by)
