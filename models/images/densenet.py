"""Convolutions each of which sees all before it (DenseNet-BC: Huang et al. 2017, arXiv:1608.06993).

GroupNorm stands for BatchNorm, as in all blocks of models/images/pyramid.py.
"""

import torch
from torch import Tensor, nn

LAYERS = 3
"""Layers of a block, each of two convolutions."""
GROUPS = 8
"""Of every GroupNorm."""


class DownDense(nn.Module):
    """A dense block, and the transition to half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        growth = max(inputs // 4 // GROUPS, 1) * GROUPS
        widths = [inputs + layer * growth for layer in range(LAYERS + 1)]
        self.layers = nn.ModuleList(_layer(width, growth) for width in widths[:-1])
        self.transition = nn.Sequential(
            *_active(widths[-1]), nn.Conv2d(widths[-1], outputs, 1), nn.AvgPool2d(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H // 2, W // 2)."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        halved: Tensor = self.transition(x)
        return halved


def _layer(inputs: int, growth: int) -> nn.Module:
    """A bottleneck of 4 times the growth, and a 3x3 convolution."""
    narrow = 4 * growth
    return nn.Sequential(
        *_active(inputs),
        nn.Conv2d(inputs, narrow, 1),
        *_active(narrow),
        nn.Conv2d(narrow, growth, 3, padding=1),
    )


def _active(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(GROUPS, channels), nn.LeakyReLU(0.2)
