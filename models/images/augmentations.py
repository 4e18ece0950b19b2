"""Random views of images that leave what they show unchanged."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

TURN, SHEAR, SHIFT = math.radians(20), 0.2, 0.15
"""At most; shifts are a part of half an image's side."""
ZOOM, BRIGHTNESS = (0.7, 1.2), (0.6, 1.4)


def random_views(image: Tensor, generator: torch.Generator, flip: bool = False) -> Tensor:
    """Turn, shear, shift, zoom and relight each image (N, C, H, W) in [0, 1]; mirror half of them if `flip`.

    Zooming in and shifting is SimCLR's random crop; each channel has a brightness of its own, which for
    RGB is its change of colour. What comes into view from outside is black.
    """
    n, channels = image.shape[:2]
    device = image.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    angle, shear = uniform(-TURN, TURN), uniform(-SHEAR, SHEAR)
    shift, zoom = uniform(-SHIFT, SHIFT, 2), uniform(*ZOOM)
    light = uniform(*BRIGHTNESS, channels, 1, 1).to(device)
    mirror = 1 - 2 * (uniform(0, 1) < 0.5).float() if flip else torch.ones(n)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    from_place = torch.stack([mirror * cos, shear - sin, mirror * sin, cos], 1).view(n, 2, 2)
    transformation = torch.cat([from_place, shift[:, :, None]], 2).to(device)
    grid = F.affine_grid(transformation, list(image.shape), align_corners=False)
    return (F.grid_sample(image, grid, align_corners=False) * light).clamp(0, 1)
