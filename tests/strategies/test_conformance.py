"""Every built-in strategy passes the conformance kit, and for each check there is one that does not."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from asking import Records
from flower_strategies import ExtraRecord, OwnConfig, PowerOfChoice, Remembers
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, Strategy
from required_options import REQUIRED
from shortened import toy
from torch import Tensor

from models.core.config import parse_options
from models.registry import TASKS
from models.state import federated_names
from server.plan import make_plan
from strategies.algorithms.fedprox import FedProx
from strategies.algorithms.krum import Krum
from strategies.conformance import SHAPES, Candidate, Check, checks
from strategies.declaration import Declaration
from strategies.privacy.central_dp import DifferentialPrivacyClientSideFixedClipping
from strategies.privacy.local_dp import LocalDP
from strategies.registry import STRATEGIES
from strategies.rule import AuxTensors, LocalRule, ParameterResult, RuleResult
from strategies.wire.arrays import to_arrays, to_record

Weights = dict[str, np.ndarray]

HERE = {"QFedAvg": "client_learning_rate = 0.1"}
"""What strategies are told of a run that they see for themselves, and the kit must say."""
BUILT_IN = [
    pytest.param(check, id=f"{name}-{check}")
    for name, cls in STRATEGIES.items()
    for check in checks(cls, **parse_options("strategy-options", (REQUIRED | HERE).get(name, "")))
]
WITHIN = {
    "LocalDP-FedProx": (LocalDP, Candidate(FedProx, {"proximal_mu": 0.1})),
    "LocalDP-Krum": (LocalDP, Candidate(Krum, {"num_malicious_nodes": 1})),
    "CentralDP-LocalDP": (
        DifferentialPrivacyClientSideFixedClipping,
        Candidate(LocalDP, {"clipping_norm": 0.5, "noise_multiplier": 0.01, "noise": "repeatable"}),
    ),
}
"""Strategies around others than FedAvg."""


FOREIGN = [
    pytest.param(check, id=f"{cls.__name__}-{check}")
    for cls in (OwnConfig, ExtraRecord, PowerOfChoice, Remembers, Records)
    for check in checks(cls)
    if (cls, str(check)) != (PowerOfChoice, "one-client-may-be-all")  # it draws six of them
]
"""Those of authors who send records and ask questions of their own."""


@pytest.mark.parametrize("check", FOREIGN)
def test_strategies_that_use_all_of_flowers_messages_conform(check: Check) -> None:
    check()


@pytest.mark.parametrize("check", BUILT_IN)
def test_the_built_in_strategies_conform(check: Check) -> None:
    check()


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, (cls, inner) in WITHIN.items()
        for check in checks(cls, strategy=inner, clipping_norm=0.5, noise_multiplier=0.01, noise="repeatable")
    ],
)
def test_strategies_around_others_conform(check: Check) -> None:
    check()


class Stepping(FedAvg):
    """FedAvg, after which a test does what should not be done."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        replies = list(replies)
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        contents = [reply.content for reply in replies if reply.has_content()]
        return to_record(self.step(to_arrays(mean), contents)), metrics

    def step(self, mean: Weights, contents: list[RecordDict]) -> Weights:
        return mean


class Unseeded(Stepping):
    def step(self, mean: Weights, contents: list[RecordDict]) -> Weights:
        noise = np.random.default_rng().normal()
        return {name: array + noise for name, array in mean.items()}


class LastWins(Stepping):
    def step(self, mean: Weights, contents: list[RecordDict]) -> Weights:
        return to_arrays(contents[-1].array_records["arrays"])


class Demanding(FedAvg):
    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        replies = list(replies)
        failed = any(reply.has_error() for reply in replies)
        return (None, None) if failed else super().aggregate_train(server_round, replies)


class Expectant(FedAvg):
    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        contents = [reply.content for reply in replies if reply.has_content()]
        return contents[0].array_records["arrays"], contents[0].metric_records["metrics"]


class Inventive(FedAvg):
    """Makes a model of nothing."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, *others: Any) -> Any:
        self.old = arrays
        return super().configure_train(server_round, arrays, *others)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        new, metrics = super().aggregate_train(server_round, replies)
        return new or self.old, metrics


class Hopeful(FedAvg):
    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> Any:
        return next(reply.content for reply in replies if reply.has_content())


class Washing(Stepping):
    def step(self, mean: Weights, contents: list[RecordDict]) -> Weights:
        return {name: np.nan_to_num(array) for name, array in mean.items()}


class Scaled(Stepping):
    """Divides by the spread of the clients."""

    def step(self, mean: Weights, contents: list[RecordDict]) -> Weights:
        updates = [to_arrays(content.array_records["arrays"]) for content in contents]
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                name: array / np.std([update[name] for update in updates]) for name, array in mean.items()
            }


class PerExample(Stepping):
    def step(self, mean: Weights, contents: list[RecordDict]) -> Weights:
        rate = sum(1 / content.metric_records["metrics"]["num-examples"] for content in contents)  # type: ignore[operator]
        return {name: array * rate for name, array in mean.items()}


class Unsaved(Stepping):
    """Counts its rounds in what no checkpoint can hold."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: set[object] = set()

    def step(self, mean: Weights, contents: list[RecordDict]) -> Weights:
        self.seen.add(object())
        return {name: array * len(self.seen) for name, array in mean.items()}


class Forgetful(Unsaved):
    """Leaves what it counts out of checkpoints."""

    declaration = Declaration(not_kept=("seen",))


class RowByRow(Stepping):
    def step(self, mean: Weights, contents: list[RecordDict]) -> Weights:
        return {name: np.stack(list(array)) for name, array in mean.items()}


class FlatLover(Stepping):
    def step(self, mean: Weights, contents: list[RecordDict]) -> Weights:
        return {name: array.reshape(-1) for name, array in mean.items()}


class Hasty(FedMedian):
    declaration = Declaration(weighted_mean=True)


class Norm(LocalRule):
    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        return gradient / gradient.norm()


class InPlace(LocalRule):
    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        weight.mul_(0.5)
        return gradient


class Waiting(LocalRule):
    sent = ("pull",)


class Hoarding(LocalRule):
    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        for each in results.values():
            each.aux.kept["last"] = each.weight
        return RuleResult()


class Brief(LocalRule):
    """Replies one number for a whole weight."""

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        return RuleResult({"mean": {name: each.weight.mean() for name, each in results.items()}})


class WithRule(FedAvg):
    def __init__(self, rule: str, **options: Any) -> None:
        super().__init__(**options)
        self.declaration = Declaration(local_rules=(f"test_conformance:{rule}",))


def broken(check: str, cls: type[Strategy], reason: str, **options: Any) -> Any:
    """Return a strategy that fails a check, and why it says that it does."""
    name = options.get("rule", cls.__name__)
    return pytest.param(check, checks(cls, **options), reason, id=f"{name}-{check}")


@pytest.mark.parametrize(
    ("name", "all_checks", "reason"),
    [
        broken("seeds-decide", Unseeded, "two runs with the same seeds differ"),
        broken("order-does-not-matter", LastWins, "depends on the order of the replies"),
        broken("a-client-may-fail", Demanding, "no model came out of round 1"),
        broken("nobody-may-answer", Expectant, "without a reply it fails with IndexError: list index"),
        broken("nobody-may-answer", Inventive, "a model came out of a round in which no client answered"),
        broken("nobody-may-answer", Hopeful, "without a reply it fails with StopIteration"),
        broken("not-a-number-is-not-hidden", Washing, "an update of NaN became finite numbers"),
        broken("one-client-may-be-all", Scaled, "the model of a single client is not finite"),
        broken("a-client-may-have-no-examples", PerExample, "division by zero"),
        broken("memory-survives", Unsaved, r"Unsaved.seen\[0\] is of type object, which no checkpoint"),
        broken("memory-survives", Forgetful, "after a checkpoint it goes on otherwise"),
        broken("any-shape-will-do", RowByRow, "iteration over a 0-d array"),
        broken("any-shape-will-do", FlatLover, r"must come back in the shape \(4, 1, 3, 3\), got \(36,\)"),
        broken("nodes-may-send-the-mean", Hasty, "the mean of the replies gives another model"),
        broken("rule-broadcasts", WithRule, "let its formula work elementwise", rule="Norm"),
        broken("rule-broadcasts", WithRule, "changes in place what it is given", rule="InPlace"),
        broken(
            "rule-keeps-its-word",
            WithRule,
            r"the strategy sends \[\] beside the weights, and the rule names \['pull'\]",
            rule="Waiting",
        ),
        broken("rule-keeps-its-word", WithRule, r"the rule keeps \['last'\]", rule="Hoarding"),
        broken("rule-keeps-its-word", WithRule, "the rule replies 'mean' not for every weight", rule="Brief"),
    ],
)
def test_each_check_can_fail(name: str, all_checks: list[Check], reason: str) -> None:
    (check,) = (check for check in all_checks if str(check) == name)
    with pytest.raises(Exception, match=reason):
        check()


KINDS: dict[type[Strategy], dict[str, float]] = {FedMedian: {}, FedAvg: {}, FedProx: {"proximal_mu": 0.1}}


def test_a_check_is_made_where_it_says_something() -> None:
    names = {cls: {str(check) for check in checks(cls, **options)} for cls, options in KINDS.items()}
    assert names[FedAvg] - names[FedMedian] == {"nodes-may-send-the-mean"}
    assert names[FedProx] - names[FedAvg] == {"rule-keeps-its-word", "rule-broadcasts"}
    assert len(names[FedMedian]) == 9


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_kits_shapes_are_of_all_kinds(task: str) -> None:
    plan = make_plan(toy(task))
    state = plan.model.state_dict()
    names = federated_names(plan.model, plan.task).parameters
    assert {state[name].ndim for name in names} <= {len(shape) for shape in SHAPES.values()}
    assert {state[name].dtype for name in names} == {torch.float32}
    assert not any(
        "/" in name for name in names
    )  # it parts a kind from a name, see strategies.rule.aux_arrays
