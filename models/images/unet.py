"""A decoder in the form of a U-Net (Ronneberger et al. 2015, arXiv:1505.04597) that sees the code alone.

A U-Net hands its first layers' maps to its last ones. Between an autoencoder's encoder and decoder such
connections would lead the image past the code. Here the code is first drawn as a map of half the image's
size; the U-Net shrinks and enlarges this map, and its connections begin and end in the decoder.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.images.densenet import GROUPS
from models.images.pyramid import BLOCKS, num_halvings


class UnetDecoder(nn.Module):
    """A code, drawn as a map, that is shrunk, enlarged and joined with itself: the same use as `Up`."""

    def __init__(self, shape: tuple[int, int, int], num_inputs: int, width: int, blocks: str) -> None:
        super().__init__()
        channels, self.height, self.breadth = shape
        halvings = num_halvings(self.height, self.breadth)
        down, up = BLOCKS[blocks]
        widths = [width << level for level in range(halvings)]
        steps = list(pairwise(widths))
        # Rounded up: what stands over the edge is cut off.
        rows, columns = (-(-side >> halvings) << (halvings - 1) for side in (self.height, self.breadth))
        self.canvas = (width, rows, columns)
        self.from_vector = nn.Linear(num_inputs, width * rows * columns)
        self.begin = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.ReLU())
        self.down = nn.ModuleList(down(few, many) for few, many in steps)
        self.up = nn.ModuleList(up(many, few) for few, many in reversed(steps))
        self.join = nn.ModuleList(_join(few) for few, _ in reversed(steps))
        self.to_image = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)

    def forward(self, vector: Tensor) -> Tensor:
        """(B, num_inputs) -> (B, C, H, W), unbounded."""
        maps = [self.begin(self.from_vector(vector).unflatten(1, self.canvas))]
        for down in self.down:
            maps.append(down(maps[-1]))
        x = maps.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([maps.pop(), up(x)], 1))
        image: Tensor = self.to_image(x)
        return image[:, :, : self.height, : self.breadth]


def _join(channels: int) -> nn.Module:
    """A 3x3 convolution of two maps of so many channels to one."""
    return nn.Sequential(
        nn.Conv2d(2 * channels, channels, 3, padding=1), nn.GroupNorm(GROUPS, channels), nn.ReLU()
    )
