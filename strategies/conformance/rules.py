"""What is checked of a strategy's client half."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from strategies.conformance.federation import Candidate, ConformanceError, Federation, config_of, to_tensors
from strategies.rule import AuxTensors, LocalRule, split_aux

STACK = 3
"""Clients that are trained side by side."""


def rule_keeps_its_word(candidate: Candidate) -> None:
    """The strategy sends what the rule names, and the rule keeps and replies a tensor for every weight."""
    for rounds_before in (0, 1):  # in the second round clients remember
        federation = Federation(candidate)
        for _ in range(rounds_before):
            federation.play()
        for number, message in federation.ask().items():
            rule = federation.rule(config_of(message))
            weights, sent = split_aux(to_tensors(message))
            _require("the strategy sends", sent, rule.sent, weights)
            results, rule_result = federation.clients[number].train(message, rule)
            kept: dict[str, dict[str, Tensor]] = {}
            for name, each in results.items():
                for kind, tensor in each.aux.kept.items():
                    kept.setdefault(kind, {})[name] = tensor
            _require("the rule keeps", kept, rule.kept, weights)
            _require("the rule replies", rule_result.aux, rule_result.aux, weights)


def rule_broadcasts(candidate: Candidate) -> None:
    """Stacked clients get the gradients that each would get by itself, and nothing is changed in place."""
    federation = Federation(candidate)
    federation.play()
    message = next(iter(federation.ask().values()))
    rule = federation.rule(config_of(message))
    weights, sent = split_aux(to_tensors(message))
    generator = torch.Generator().manual_seed(0)
    for name, anchor in weights.items():
        gradient, weight, *kept = torch.randn(2 + len(rule.kept), STACK, *anchor.shape, generator=generator)
        aux = AuxTensors(
            anchor, {kind: sent[kind][name] for kind in rule.sent}, dict(zip(rule.kept, kept, strict=True))
        )
        stacked = _gradient(rule, gradient, weight, aux)
        alone = [
            _gradient(
                rule,
                gradient[row],
                weight[row],
                replace(aux, kept={kind: each[row] for kind, each in aux.kept.items()}),
            )
            for row in range(STACK)
        ]
        if not (stacked.shape == gradient.shape and torch.allclose(stacked, torch.stack(alone))):
            raise ConformanceError(
                f"the rule gives stacked clients another gradient than each by itself, for a weight "
                f"of the shape {tuple(anchor.shape)}: let its formula work elementwise"
            )


def _gradient(rule: LocalRule, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
    """Return the rule's gradient; raise if it changes what other steps, kinds or clients go by."""
    seen = weight, aux.anchor, *aux.sent.values(), *aux.kept.values()
    before = [tensor.clone() for tensor in seen]
    result = rule.gradient(gradient.clone(), weight, aux)
    if not all(map(torch.equal, seen, before)):
        raise ConformanceError("the rule's gradient changes in place what it is given")
    return result


def _require(
    subject: str,
    found: Mapping[str, Mapping[str, Tensor]],
    kinds: Iterable[str],
    weights: Mapping[str, Tensor],
) -> None:
    """Raise unless `found` has exactly these kinds, and in each a tensor of each weight's shape."""
    if set(found) != set(kinds):
        raise ConformanceError(
            f"{subject} {sorted(found)} beside the weights, and the rule names {sorted(kinds)}"
        )
    shapes = {name: weight.shape for name, weight in weights.items()}
    for kind, tensors in found.items():
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise ConformanceError(f"{subject} {kind!r} not for every weight in the weight's shape")
