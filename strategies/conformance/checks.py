"""What is checked of every strategy. Each check raises ConformanceError, or what the strategy raises."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp.strategy import Strategy

from strategies.conformance.changes import (
    all_fail,
    backwards,
    failure,
    first_fails,
    first_fails_and_summed,
    first_has_no_examples,
    first_is_not_finite,
    none_replies,
    summed,
)
from strategies.conformance.federation import (
    SHAPES,
    Candidate,
    Change,
    ConformanceError,
    Federation,
    Weights,
)
from strategies.conformance.rules import rule_broadcasts, rule_keeps_its_word
from strategies.declaration import declaration_of
from strategies.kept_values import ALLOWED

TOLERANCE = 1e-5
"""Relative; sums of float32 in another order differ by some 1e-7."""


@dataclass(frozen=True)
class Check:
    """One check of one strategy: call it."""

    candidate: Candidate
    body: Callable[[Candidate], None]

    def __call__(self) -> None:
        """Raise ConformanceError where the strategy does not hold."""
        gc.freeze()  # Flower collects garbage for each reply that a strategy converts, which torch makes slow
        try:
            self.body(self.candidate)
        finally:
            gc.unfreeze()

    def __str__(self) -> str:
        """Name it, for reports."""
        return self.body.__name__.replace("_", "-")


def checks(cls: type[Strategy], **options: Any) -> list[Check]:
    """Return all checks that concern a strategy with these options."""
    candidate = Candidate(cls, options)
    declaration = declaration_of(candidate.build())
    bodies = list(EVERY_STRATEGY)
    if declaration.weighted_mean:
        bodies.append(nodes_may_send_the_mean)
    if declaration.local_rules:
        bodies += [rule_keeps_its_word, rule_broadcasts]
    return [Check(candidate, body) for body in bodies]


def seeds_decide(candidate: Candidate) -> None:
    """Two runs of one seed are one: `random` and `numpy.random` are seeded, what else draws is not."""
    once, again = (_model(Federation(candidate), rounds=2) for _ in range(2))
    _require(_equal(once, again), "two runs with the same seeds differ: draw from random or numpy.random")


def order_does_not_matter(candidate: Candidate) -> None:
    """Replies come in any order. A run sorts them, so that not even the rounding depends on it."""
    one, other = (_model(Federation(candidate), change, rounds=2) for change in (dict, backwards))
    _require(_close(one, other), "the result depends on the order of the replies")


def a_client_may_fail(candidate: Candidate) -> None:
    """An error among the replies costs that client's update, and not the round."""
    if _asks_one_client(candidate):
        return  # then nobody is left, which is a check of its own
    weights = _model(Federation(candidate), first_fails, rounds=2)
    _require(_finite(weights), "the result is not finite once a client failed")


def nobody_may_answer(candidate: Candidate) -> None:
    """Without an update there is no new model: None, or one of Flower's errors, such as AggregationError."""
    for change in (all_fail, none_replies):
        weights = _refusing(Federation(candidate).play, change)
        _require(weights is None, "a model came out of a round in which no client answered")
    evaluated = Message(failure(), reply_to=Message(RecordDict(), 0, MessageType.EVALUATE))
    for replies in ([evaluated], []):
        _refusing(candidate.build().aggregate_evaluate, 1, replies)


def not_a_number_is_not_hidden(candidate: Candidate) -> None:
    """An update that is not finite shows in the result, or has no part in it, as if its client had failed.

    polyfed's clients send none, and the server ends the run at a model that is not finite. What is left
    to the strategy is not to make finite numbers of it.
    """
    with np.errstate(invalid="ignore"):
        weights = Federation(candidate, alike=True).play(first_is_not_finite)
    if weights is None or not _finite(weights):
        return
    without = Federation(candidate, alike=True).play(first_fails)
    _require(without is not None and _close(weights, without), "an update of NaN became finite numbers")


def one_client_may_be_all(candidate: Candidate) -> None:
    """A federation of a single client gives a model, or the refusal of a strategy that needs more."""
    try:
        federation = Federation(candidate, num_clients=1, cohort=1)
    except ValueError:  # a constructor's refusal
        return
    weights = federation.play()
    _require(weights is None or _finite(weights), "the model of a single client is not finite")


def a_client_may_have_no_examples(candidate: Candidate) -> None:
    """A client that trained on nothing spoils nothing. The server ends a run itself where all have none."""
    if _asks_one_client(candidate):
        return
    weights = _model(Federation(candidate), first_has_no_examples, rounds=2)
    _require(_finite(weights), "the result is not finite with a client that has no examples")


def memory_survives(candidate: Candidate) -> None:
    """A run that is resumed goes on as if nothing had been: see `strategies.memory` for what is saved."""
    federation = Federation(candidate)
    _model(federation, rounds=2)
    resumed = federation.resumed()
    went_on, came_back = (_model(each, rounds=2) for each in (federation, resumed))
    _require(
        _equal(went_on, came_back),
        f"after a checkpoint it goes on otherwise: keep memory in attributes that hold {ALLOWED}",
    )


def any_shape_will_do(candidate: Candidate) -> None:
    """Models have weights of every number of axes, single numbers too, under all kinds of names."""
    for shapes in ({name: shape} for name, shape in SHAPES.items()):
        weights = _model(Federation(candidate, shapes=shapes), rounds=2)
        _require(_finite(weights), f"the result is not finite for a model of {shapes}")


def nodes_may_send_the_mean(candidate: Candidate) -> None:
    """With `weighted_mean` declared, a node sends the weighted mean of its clients' replies alone."""
    weighted_by = declaration_of(candidate.build()).weighted_by
    for change, and_summed in ((dict, summed), (first_fails, first_fails_and_summed)):
        single = _model(Federation(candidate), change, rounds=2)
        added_up = _model(Federation(candidate), partial(and_summed, weighted_by=weighted_by), rounds=2)
        _require(
            _close(single, added_up),
            "it declares weighted_mean, and the mean of the replies gives another model",
        )


EVERY_STRATEGY: tuple[Callable[[Candidate], None], ...] = (
    seeds_decide,
    order_does_not_matter,
    a_client_may_fail,
    nobody_may_answer,
    not_a_number_is_not_hidden,
    one_client_may_be_all,
    a_client_may_have_no_examples,
    memory_survives,
    any_shape_will_do,
)


def _asks_one_client(candidate: Candidate) -> bool:
    return len(Federation(candidate).ask()) == 1


def _model(federation: Federation, change: Change = dict, rounds: int = 1) -> Weights:
    """Play rounds that every strategy must get through; return the last one's weights."""
    for _ in range(rounds):
        if federation.play(change) is None:
            raise ConformanceError(f"no model came out of round {federation.server_round}")
    return federation.weights


def _refusing(aggregate: Callable[..., Any], *arguments: Any) -> Any:
    """Return what comes of an aggregation without updates; raise where it fails without saying why."""
    try:
        return aggregate(*arguments)
    except AppExitException:
        return None
    except Exception as error:
        raise ConformanceError(
            f"without a reply it fails with {type(error).__name__}: {error}; "
            "return None, or raise AggregationError"
        ) from error


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ConformanceError(otherwise)


def _finite(weights: Weights) -> bool:
    return all(np.isfinite(array).all() for array in weights.values())


def _equal(a: Weights, b: Weights) -> bool:
    return all(np.array_equal(array, b[name], equal_nan=True) for name, array in a.items())


def _close(a: Weights, b: Weights) -> bool:
    return all(
        np.allclose(array, b[name], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        for name, array in a.items()
    )
