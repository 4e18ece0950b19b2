"""What clients do that attack: they train on wrong labels, or reply wrong updates."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from clients.site import Site
from models.attackers import attackers
from models.config import TaskConfig
from models.data.dataset import Examples
from models.seeds import generator_for


def poison(site: Site, client: int, examples: Examples) -> Examples:
    """Return the rows that a client trains on: an attacker's have the label y turned into C - 1 - y.

    This is the label flipping of Fang et al. 2020 (arXiv:1911.11815, section 5.1), for C classes.
    """
    label = site.dataset.label
    if site.config.attack != "label-flip" or not label or client not in _attackers(site.config):
        return examples
    last = len(site.dataset.classes) - 1
    return Examples({**examples.columns, label: last - examples[label]})


def tamper(
    site: Site, client: int, server_round: int, state: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return the state that a client replies, after training from the server's `weights`.

    An attacker sends its update back `attack-scale` times with the sign turned ("sign-flip"), or noise of
    that standard deviation in its place ("gaussian"; Blanchard et al. 2017, arXiv:1703.02757, section 5).
    """
    attack, scale = site.config.attack, site.config.attack_scale
    if attack not in ("sign-flip", "gaussian") or client not in _attackers(site.config):
        return state
    generator = generator_for(site.config.seed, "attack", server_round, client)
    wrong = {}
    for name in site.federated:
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
