"""The client half of a strategy at work: its aux tensors, its gradients, its result."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import EllipsisType

import torch
from torch import Tensor, nn

from clients.loop import Optimizers
from models.core.plugins import load_object
from strategies.rule import AuxTensors, Chain, LocalRule, ParameterResult, RuleResult
from strategies.wire.request import ClientRequest

Recall = Callable[[str, Tensor], Tensor]
"""(KIND/NAME, the server's weight) -> what the client remembers, or zeros like the weight."""


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
        self.aux = {
            weight: AuxTensors(
                anchor=sent[name].to(weight.device),
                sent={kind: sent_aux[kind][name].to(weight.device) for kind in rule.sent},
                kept={kind: recall(f"{kind}/{name}", sent[name]).to(weight.device) for kind in rule.kept},
            )
            for name, weight in self.weights.items()
        }
        self.num_steps: dict[Tensor, int] = defaultdict(int)
        self.path: dict[Tensor, float] = defaultdict(float)
        self.momentum: dict[Tensor, float] = {}
        for _, optimizer in optimizers:
            optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        with torch.no_grad():
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    if weight.grad is None or weight not in self.aux:
                        continue
                    weight.grad.copy_(self.rule.gradient(weight.grad, weight, self.aux[weight]))
                    self.num_steps[weight] += 1
                    self.path[weight] += float(group["lr"])
                    self.momentum[weight] = float(group.get("momentum", 0.0))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with the clients in these rows of a stack."""
        for aux in self.aux.values():
            aux.kept = {kind: kept[rows] for kind, kept in aux.kept.items()}

    def close(self, row: int | EllipsisType = ...) -> tuple[RuleResult, dict[str, Tensor]]:
        """Return what the rule adds to a client's reply, and what it keeps; of a stack, for one row."""
        results = {}
        for name, weight in self.weights.items():
            whole = self.aux[weight]
            results[name] = ParameterResult(
                weight.detach()[row],
                AuxTensors(whole.anchor, whole.sent, {kind: kept[row] for kind, kept in whole.kept.items()}),
                self.num_steps[weight],
                self.path[weight],
                self.momentum.get(weight, 0.0),
            )
        rule_result = self.rule.close(results)
        kept = {
            f"{kind}/{name}": each.aux.kept[kind] for kind in self.rule.kept for name, each in results.items()
        }
        return rule_result, kept


def load_rules(names: Sequence[str], config: Mapping[str, object]) -> tuple[LocalRule, ...]:
    """Return the client half that a strategy names; `config` is what it says to this client in this round.

    Raises UserError for a rule that is not there, and TypeError for what is no rule.
    """
    return tuple(_rule_class(name)(config) for name in names)


@cache
def _rule_class(name: str) -> type[LocalRule]:
    """Resolve "module:Class", once a process."""
    found = load_object(name, "local rule")
    if not (isinstance(found, type) and issubclass(found, LocalRule)):
        raise TypeError(
            f"local rule {name!r} must be a subclass of strategies.LocalRule, and it is {found!r}"
        )
    return found
