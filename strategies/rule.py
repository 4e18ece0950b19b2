"""The client half of a strategy.

A strategy names its rules in `Declaration.local_rules`. One that also names `personal_rules` is personalised:
every client then keeps a model of its own, which is trained under these rules beside the shared one.

What a strategy sends beside the weights, and what its rule replies beside them, are aux tensors: one for each
weight, of the weight's shape. They travel in the message's one record of arrays, under the names that
`aux_arrays` gives them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]
"""What travels in a message, by name."""
CLIENT_COUNT = "num-clients"
"""Metric of a client, always 1: a strategy that weights by it counts every client alike."""
WEIGHT = "weight"
"""What `LocalRule.settle` calls a weight itself, beside the kinds of aux tensors."""
RECEIVED = "received-"
"""Prefix of a client's losses at the weights that it received, before it trains."""
TRAINS = "trains-"
"""Prefix of what a client tells of each part of the model that not every client trains: 1 if it does, or
0."""
PERSONAL = "personal-"
"""Prefix of what clients keep and tell of their own models."""


@dataclass
class AuxTensors:
    """Aux tensors of a weight while a client trains it; all broadcast against it."""

    anchor: Tensor
    """The weight as the server sent it."""
    sent: Mapping[str, Tensor] = field(default_factory=dict)
    """What the strategy sent for it, by kind."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """What the client keeps for it from round to round, by kind."""


@dataclass
class ParameterResult:
    """Weight after a client's training, and how it got there."""

    weight: Tensor
    aux: AuxTensors
    num_steps: int
    """Steps of its optimizers in this round; one at which it had no gradient is a step of gradient zero."""
    path: float
    """Sum of the learning rates of these steps."""
    gradient_sum: float
    """How far these steps would have moved it, had every gradient been 1, and those in a kept momentum too.

    So the weight is `anchor - gradient_sum * (a weighted mean of its gradients)`, under SGD with any schedule
    of learning rates, momentum, dampening and nesterov, and rules that pull.
    """
    objectives: tuple[int, ...] = (0,)
    """Which of the task's objectives train it, by their places."""


@dataclass
class RuleResult:
    """What a rule adds to a client's reply."""

    aux: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Kind -> weight's name -> tensor of the weight's shape."""
    metrics: Mapping[str, float] = field(default_factory=dict)


class LocalRule:
    """Changes the gradients of every optimizer step on a client, and may add to what it replies.

    The loop installs it with `register_step_pre_hook`, so it holds for every objective of every task. It
    sees the federated weights only: what stays with the client is not the strategy's. Its formula works
    elementwise on tensors of any shape, and so on clients that are stacked along a leading axis.
    """

    sent: tuple[str, ...] = ()
    """Kinds of aux tensors that the strategy sends."""
    kept: tuple[str, ...] = ()
    """Kinds of aux tensors that a client keeps; zeros before its first round."""
    pull: float = 0.0
    """The mu of a `gradient` that adds mu * (weight - aux.anchor), as a proximal term does."""

    def __init__(self, config: Mapping[str, object]) -> None:
        """Read what the strategy sent to this client in this round."""

    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        """Return the gradient to step with."""
        return gradient

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        """Act after a client's last step, on its weights by name; `aux.kept` may be set anew."""
        return RuleResult()

    def settle(self, kept: dict[str, Tensor], lost: Mapping[str, Tensor]) -> None:
        """Set anew what the client keeps for a weight, where the server will not read what `close` replied.

        Compression, clipping or noise changed it on the way out: `lost` is by how much, for the weight itself
        (WEIGHT) and for each kind of aux tensor that was replied. What is kept must answer to what is read
        where a strategy counts on it.
        """

    def reply(
        self, arrays: Arrays, received: Arrays, generator: torch.Generator
    ) -> tuple[Arrays, Mapping[str, float]]:
        """Return what a client replies instead of `arrays`, and metrics to go with it.

        Unlike the rest of a rule it sees a client's whole reply at once: what no optimizer trains too, and
        its aux tensors. `received` is what the server sent, in read-only arrays. What is
        random is drawn from `generator`, which is the client's own, on the CPU.
        """
        return arrays, {}


class Chain(LocalRule):
    """Rules one after another, each changing what the one before it made of a gradient or a reply."""

    def __init__(self, rules: Sequence[LocalRule]) -> None:
        """Raise ValueError for rules that keep tensors of the same kind, as they would overwrite them."""
        self.rules = rules
        self.sent = tuple(dict.fromkeys(kind for rule in rules for kind in rule.sent))
        self.kept = tuple(kind for rule in rules for kind in rule.kept)
        self.pull = sum(rule.pull for rule in rules)
        if len(set(self.kept)) < len(self.kept):
            raise ValueError(f"two local rules keep the same kind of tensor: {', '.join(self.kept)}")

    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        """Return the gradient after all rules."""
        for rule in self.rules:
            gradient = rule.gradient(gradient, weight, aux)
        return gradient

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        """Return what all rules add to the reply."""
        added = [rule.close(results) for rule in self.rules]
        return RuleResult(
            {kind: tensors for each in added for kind, tensors in each.aux.items()},
            {name: value for each in added for name, value in each.metrics.items()},
        )

    def reply(
        self, arrays: Arrays, received: Arrays, generator: torch.Generator
    ) -> tuple[Arrays, dict[str, float]]:
        """Return what all rules make of the reply."""
        metrics: dict[str, float] = {}
        for rule in self.rules:
            arrays, more = rule.reply(arrays, received, generator)
            metrics |= more
        return arrays, metrics


def aux_arrays(kind: str, arrays: Mapping[str, T]) -> dict[str, T]:
    """Return aux tensors of this kind under the names by which they travel beside the weights."""
    return {f"{kind}/{name}": array for name, array in arrays.items()}


def split_aux(arrays: Mapping[str, T]) -> tuple[dict[str, T], dict[str, dict[str, T]]]:
    """Return the weights of a message, and its aux tensors: kind -> weight's name -> array."""
    weights: dict[str, T] = {}
    aux: dict[str, dict[str, T]] = {}
    for key, array in arrays.items():
        kind, slash, name = key.rpartition("/")
        if slash:
            aux.setdefault(kind, {})[name] = array
        else:
            weights[name] = array
    return weights, aux
