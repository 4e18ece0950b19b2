"""GroupNorm in the place of BatchNorm, whose running statistics do not average well over clients.

(Wu & He 2018, arXiv:1803.08494; Hsieh et al. 2020, arXiv:1910.00189.)
"""

from torch import nn

MOST_GROUPS = 32
"""The paper's number of groups, where there are enough channels."""
LEAST_CHANNELS = 8
"""Channels of a group at least: late maps of small images have one pixel, and of a few numbers no more than
their order would be left."""


def num_groups(channels: int) -> int:
    """Return the largest divisor of `channels` up to 32 that leaves each group 8 channels; else 1."""
    fitting = range(1, min(MOST_GROUPS, channels // LEAST_CHANNELS) + 1)
    return max((groups for groups in fitting if channels % groups == 0), default=1)


def with_group_norm(network: nn.Module) -> int:
    """Put a GroupNorm in the place of every BatchNorm2d of `network`; return how many there were.

    It keeps the scale and the shift that the network begins with, and their names.
    """
    places = [
        (module, name, child)
        for module in network.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.BatchNorm2d)
    ]
    for module, name, old in places:
        new = nn.GroupNorm(num_groups(old.num_features), old.num_features, old.eps)
        new.weight, new.bias = old.weight, old.bias
        setattr(module, name, new)
    return len(places)
