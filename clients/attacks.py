"""What clients do that attack: they train on wrong labels, or reply wrong updates."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from clients.worker import Worker
from models.core.config import TaskConfig
from models.core.seeds import generator_for
from models.data.attackers import attackers, flipped
from models.data.dataset import Examples
from strategies.wire.request import ClientRequest


def poison(worker: Worker, client: int, examples: Examples) -> Examples:
    """Return the examples that a client trains on: an attacker's have their labels turned."""
    turned = worker.config.attack == "label-flip" and worker.dataset.label
    return flipped(examples, worker.dataset) if turned and client in _attackers(worker.config) else examples


def tampers(worker: Worker, client: int) -> bool:
    """Whether a client replies something else than what it has learned."""
    return worker.config.attack in ("sign-flip", "gaussian") and client in _attackers(worker.config)


def tamper(worker: Worker, request: ClientRequest, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights that an attacker replies, after training to `weights`.

    It sends its update back `attack-scale` times with the sign turned ("sign-flip"), or noise of
    that standard deviation in its place ("gaussian"; Blanchard et al. 2017, arXiv:1703.02757, section 5).
    """
    attack, scale = worker.config.attack, worker.config.attack_scale
    generator = generator_for(worker.config.seed, "attack", request.info.server_round, request.client)
    wrong = {}
    for name, weight in weights.items():
        anchor = request.weights[name]
        if attack == "sign-flip":
            update = -scale * (weight - anchor)
        else:
            update = scale * torch.randn(anchor.shape, generator=generator, dtype=anchor.dtype)
        wrong[name] = anchor + update
    return wrong


@lru_cache(maxsize=1)
def _attackers(config: TaskConfig) -> frozenset[int]:
    return frozenset(attackers(config))
