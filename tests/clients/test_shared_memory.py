"""What the server sent lies in memory that all clients share: code of plugins cannot change it there."""

import pytest
import torch
from requests_to_clients import request_of
from torch import Tensor, nn

from clients.rules import RuleAtWork
from strategies.rule import AuxTensors, LocalRule


class Careless(LocalRule):
    """Changes in place what it is given to look at."""

    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        return aux.anchor.mul_(2.0)


def test_a_rule_that_changes_the_anchor_in_place_changes_its_own_copy() -> None:
    weight, sent = nn.Parameter(torch.ones(2)), {"w": torch.ones(2)}
    optimizer = torch.optim.SGD([weight], lr=1.0)
    RuleAtWork([Careless({})], [("w", weight)], [(None, optimizer)], request_of(sent), lambda _, each: each)  # type: ignore[list-item]
    weight.sum().backward()
    optimizer.step()
    assert weight.tolist() == [-1.0, -1.0]
    assert sent["w"].tolist() == [1.0, 1.0]


def test_the_arrays_that_a_reply_is_compared_with_are_read_only() -> None:
    request = request_of({"w": torch.ones(2)})
    with pytest.raises(ValueError, match="read-only"):
        request.received["w"] -= 1.0
    assert request.weights["w"].tolist() == [1.0, 1.0]
