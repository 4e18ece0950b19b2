"""The client half of a strategy.

A strategy names its rule in `local_rule`. One that also names a `personal_rule` is personalised: every
client then keeps a model of its own, which is trained under that rule beside the shared one.

What a strategy sends beside the weights, and what its rule replies beside them, travels in the message's one
record of arrays, under `beside(kind, name)`: a tensor for each weight, of the weight's shape.
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
EQUALLY = "num-clients"
"""Metric, always 1, by which a strategy weights that counts every client alike."""
PERSONAL = "personal-"
"""Prefix of what clients keep and tell of their own models."""


@dataclass
class Companions:
    """The tensors that stand beside a weight while a client trains it; all broadcast against it."""

    anchor: Tensor
    """The weight as the server sent it."""
    sent: Mapping[str, Tensor] = field(default_factory=dict)
    """What the strategy sent beside it, by kind."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """What the client keeps beside it from round to round, by kind."""


@dataclass
class Learned:
    """A weight after training, and how it got there."""

    weight: Tensor
    companions: Companions
    num_steps: int
    """Optimizer steps that it took in this round."""
    path: float
    """Sum of the learning rates of these steps."""
    momentum: float
    """Of its optimizer; 0 for one that has none."""


@dataclass
class Closing:
    """What a rule adds to a client's reply."""

    beside: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Kind -> weight's name -> tensor of the weight's shape."""
    metrics: Mapping[str, float] = field(default_factory=dict)


class LocalRule:
    """Changes the gradients of every optimizer step on a client, and may add to what it replies.

    The loop installs it with `register_step_pre_hook`, so it holds for every objective of every task. It
    sees the federated weights only: what stays with the client is not the strategy's. Its formula works
    elementwise on tensors of any shape, and so on clients that are stacked along a leading axis.
    """

    sent: tuple[str, ...] = ()
    """Kinds of tensors that the strategy sends beside the weights."""
    kept: tuple[str, ...] = ()
    """Kinds of tensors that a client keeps beside the weights; zeros before its first round."""

    def __init__(self, config: Mapping[str, object]) -> None:
        """Read what the strategy sent to this client in this round."""

    def gradient(self, gradient: Tensor, weight: Tensor, companions: Companions) -> Tensor:
        """Return the gradient to step with."""
        return gradient

    def close(self, learned: Mapping[str, Learned]) -> Closing:
        """Act after a client's last step, on its weights by name; `companions.kept` may be set anew."""
        return Closing()

    def reply(
        self, arrays: Arrays, received: Arrays, generator: torch.Generator
    ) -> tuple[Arrays, Mapping[str, float]]:
        """Return what a client replies instead of `arrays`, and metrics to go with it.

        Unlike the rest of a rule it sees a client's whole reply at once: what no optimizer trains too, and
        what stands beside the weights. `received` is what the server sent. What is random is drawn from
        `generator`, which is the client's own, on the CPU.
        """
        return arrays, {}


class Chain(LocalRule):
    """Rules one after another, each changing what the one before it made of a gradient or a reply."""

    def __init__(self, rules: Sequence[LocalRule]) -> None:
        """Raise ValueError for rules that keep tensors of the same kind, as they would overwrite them."""
        self.rules = rules
        self.sent = tuple(dict.fromkeys(kind for rule in rules for kind in rule.sent))
        self.kept = tuple(kind for rule in rules for kind in rule.kept)
        if len(set(self.kept)) < len(self.kept):
            raise ValueError(f"two local rules keep the same kind of tensor: {', '.join(self.kept)}")

    def gradient(self, gradient: Tensor, weight: Tensor, companions: Companions) -> Tensor:
        """Return the gradient after all rules."""
        for rule in self.rules:
            gradient = rule.gradient(gradient, weight, companions)
        return gradient

    def close(self, learned: Mapping[str, Learned]) -> Closing:
        """Return what all rules add to the reply."""
        closings = [rule.close(learned) for rule in self.rules]
        return Closing(
            {kind: tensors for closing in closings for kind, tensors in closing.beside.items()},
            {name: value for closing in closings for name, value in closing.metrics.items()},
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


def in_turn(*names: str) -> str:
    """Return the name under which local rules of these names act one after another; "" is none."""
    return "+".join(name for name in names if name)


def beside(kind: str, arrays: Mapping[str, T]) -> dict[str, T]:
    """Return the arrays under the names by which they travel beside the weights of the same names."""
    return {f"{kind}/{name}": array for name, array in arrays.items()}


def split(arrays: Mapping[str, T]) -> tuple[dict[str, T], dict[str, dict[str, T]]]:
    """Return the weights of a message, and what stands beside them: kind -> name -> array."""
    weights: dict[str, T] = {}
    companions: dict[str, dict[str, T]] = {}
    for key, array in arrays.items():
        kind, slash, name = key.rpartition("/")
        if slash:
            companions.setdefault(kind, {})[name] = array
        else:
            weights[name] = array
    return weights, companions
