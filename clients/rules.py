"""The client half of a strategy at work: its aux tensors, its gradients, its result."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor, nn

from clients.loop import Optimizers
from clients.steps import StepCount
from models.core.plugins import load_object
from strategies.rule import AuxTensors, Chain, LocalRule, ParameterResult, RuleResult
from strategies.wire.request import ClientRequest

Recall = Callable[[str, Tensor], Tensor]
"""(KIND/NAME, the server's weight) -> what the client remembers, or zeros like the weight."""
BUFFERED = "buffered"
"""Slot of an optimizer's state: `StepCount.buffered`, which a client remembers with the momentum itself."""


class RuleAtWork:
    """Rules that are installed on the optimizers of one client, or of a stack of them."""

    def __init__(
        self,
        rules: Sequence[LocalRule],
        parameters: Iterable[tuple[str, nn.Parameter]],
        optimizers: Optimizers,
        request: ClientRequest,
        recall: Recall,
    ) -> None:
        """Install the rules for the parameters that the server sent; what it sent stays as it is."""
        sent, sent_aux = request.weights, request.aux
        self.rule = rule = rules[0] if len(rules) == 1 else Chain(rules)
        self.weights = {name: weight for name, weight in parameters if weight.requires_grad and name in sent}
        # Copies: what was sent is shared with other clients, and within one process with the server.
        self.aux = {
            weight: AuxTensors(
                anchor=sent[name].to(weight.device, copy=True),
                sent={kind: sent_aux[kind][name].to(weight.device, copy=True) for kind in rule.sent},
                kept={kind: recall(f"{kind}/{name}", sent[name]).to(weight.device) for kind in rule.kept},
            )
            for name, weight in self.weights.items()
        }
        self.optimizers = [optimizer for _, optimizer in optimizers]
        self.counts = {
            (place, index): StepCount(rule.pull, _remembered(optimizer, group))
            for place, optimizer in enumerate(self.optimizers)
            for index, group in enumerate(optimizer.param_groups)
        }
        self.trained_by: dict[Tensor, list[tuple[int, int]]] = {weight: [] for weight in self.aux}
        """Weight -> the optimizers and their groups that step it, in order."""
        for place, optimizer in enumerate(self.optimizers):
            for index, group in enumerate(optimizer.param_groups):
                for weight in group["params"]:
                    if weight in self.aux:
                        self.trained_by[weight].append((place, index))
            optimizer.register_step_pre_hook(partial(self._before_step, place))

    def _before_step(self, place: int, optimizer: torch.optim.Optimizer, *_: object) -> None:
        with torch.no_grad():
            for index, group in enumerate(optimizer.param_groups):
                for weight in group["params"]:
                    if weight not in self.aux:
                        continue
                    if weight.grad is not None:
                        weight.grad.copy_(self.rule.gradient(weight.grad, weight, self.aux[weight]))
                        continue
                    # The loss does not depend on it, which is a gradient of zero. The rule may move it all
                    # the same; where it does not, the optimizer leaves the weight alone, as without a rule.
                    moved = self.rule.gradient(torch.zeros_like(weight), weight, self.aux[weight])
                    if moved.any():
                        weight.grad = moved
                self.counts[place, index].add(optimizer, group)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with the clients in these rows of a stack."""
        for aux in self.aux.values():
            aux.kept = {kind: kept[rows] for kind, kept in aux.kept.items()}

    def close(self, row: int | EllipsisType = ...) -> tuple[RuleResult, dict[str, Tensor]]:
        """Return what the rule adds to a client's reply, and what it keeps; of a stack, for one row."""
        results = {}
        for name, weight in self.weights.items():
            whole = self.aux[weight]
            counts = [self.counts[each] for each in self.trained_by[weight]]
            results[name] = ParameterResult(
                weight.detach()[row],
                AuxTensors(whole.anchor, whole.sent, {kind: kept[row] for kind, kept in whole.kept.items()}),
                num_steps=sum(each.num_steps for each in counts),
                path=sum(each.path for each in counts),
                gradient_sum=sum(each.gradient_sum for each in counts),
                objectives=tuple(place for place, _ in self.trained_by[weight]),
            )
        self._remember()
        rule_result = self.rule.close(results)
        kept = {
            f"{kind}/{name}": each.aux.kept[kind] for kind in self.rule.kept for name, each in results.items()
        }
        return rule_result, kept

    def _remember(self) -> None:
        """Put beside each momentum what it is made of: whoever keeps the one must know the other."""
        for (place, index), count in self.counts.items():
            if count.buffered is not None:
                optimizer = self.optimizers[place]
                for weight in optimizer.param_groups[index]["params"]:
                    if weight in optimizer.state:
                        optimizer.state[weight][BUFFERED] = torch.tensor(count.buffered)


def _remembered(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float | None:
    """Return what the client remembers of a group's momentum; all of its weights were stepped alike."""
    slots = (optimizer.state[weight] for weight in group["params"] if weight in optimizer.state)
    return next((float(each[BUFFERED]) for each in slots if BUFFERED in each), None)


def load_rules(names: Sequence[str], config: Mapping[str, object]) -> tuple[LocalRule, ...]:
    """Return the client half that a strategy names; `config` is what it says to this client in this round.

    Raises UserError for a rule that is not there, and TypeError for what is no rule.
    """
    return tuple(rule_class(name)(config) for name in names)


@cache
def rule_class(name: str) -> type[LocalRule]:
    """Resolve "module:Class", once a process; raise TypeError for what is no rule."""
    found = load_object(name, "local rule")
    if not (isinstance(found, type) and issubclass(found, LocalRule)):
        raise TypeError(
            f"local rule {name!r} must be a subclass of strategies.LocalRule, and it is {found!r}"
        )
    return found
