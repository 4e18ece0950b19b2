"""What clients do that attack: they train on wrong labels, or reply wrong updates."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from clients.worker import Worker
from models.core.config import TaskConfig
from models.core.seeds import generator_for
from models.data.attackers import attackers
from models.data.dataset import Examples


def poison(worker: Worker, client: int, examples: Examples) -> Examples:
    """Return the rows that a client trains on: an attacker's have the label y turned into C - 1 - y.

    This is the label flipping of Fang et al. 2020 (arXiv:1911.11815, section 5.1), for C classes.
    """
    label = worker.dataset.label
    if worker.config.attack != "label-flip" or not label or client not in _attackers(worker.config):
        return examples
    last = len(worker.dataset.classes) - 1
    return Examples({**examples.columns, label: last - examples[label]})


def tamper(
    worker: Worker, client: int, server_round: int, state: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return the state that a client replies, after training from the server's `weights`.

    An attacker sends its update back `attack-scale` times with the sign turned ("sign-flip"), or noise of
    that standard deviation in its place ("gaussian"; Blanchard et al. 2017, arXiv:1703.02757, section 5).
    """
    attack, scale = worker.config.attack, worker.config.attack_scale
    if attack not in ("sign-flip", "gaussian") or client not in _attackers(worker.config):
        return state
    generator = generator_for(worker.config.seed, "attack", server_round, client)
    wrong = {}
    for name in worker.federated:
        anchor = weights[name].to(state[name].device)
        if attack == "sign-flip":
            update = -scale * (state[name] - anchor)
        else:
            update = scale * torch.randn(anchor.shape, generator=generator, dtype=anchor.dtype).to(
                anchor.device
            )
        wrong[name] = anchor + update
    return {**state, **wrong}


@lru_cache(maxsize=1)
def _attackers(config: TaskConfig) -> frozenset[int]:
    return frozenset(attackers(config))
