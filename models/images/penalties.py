"""What a discriminator pays for being steep: penalties on its gradient with respect to images."""

from collections.abc import Callable

import torch
from torch import Tensor

Discriminator = Callable[[Tensor], Tensor]
"""(B, C, H, W) -> logits (B, 1), each of its own image alone."""


def input_gradients(discriminator: Discriminator, image: Tensor) -> Tensor:
    """Return each image's gradient of its own logit (B, C, H, W), through which weights can be trained.

    By torch.func.grad, which can be mapped over clients; torch.autograd.grad cannot.
    """

    def summed(points: Tensor) -> Tensor:
        total: Tensor = discriminator(points).float().sum()
        return total

    gradients: Tensor = torch.func.grad(summed)(image)
    return gradients


def gradient_penalty(discriminator: Discriminator, points: Tensor) -> Tensor:
    """Return the mean of (|gradient| - 1)^2 at these points (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3).

    Times 10 it holds a critic to slopes of 1.
    """
    gradients = input_gradients(discriminator, points).flatten(1)
    lengths: Tensor = torch.linalg.vector_norm(gradients, dim=1)
    return (lengths - 1).square().mean()


def r1_penalty(discriminator: Discriminator, real: Tensor) -> Tensor:
    """Return half the mean of |gradient|^2 at real images (Mescheder et al. 2018, arXiv:1801.04406, eq. 9).

    Times 10 it lets a discriminator come to rest where generated images are like real ones.
    """
    return input_gradients(discriminator, real).flatten(1).square().sum(1).mean() / 2


def between(real: Tensor, fake: Tensor, part: Tensor) -> Tensor:
    """Return the points on the lines from fake (part 0) to real images (part 1); part is (B, 1, 1, 1)."""
    return part * real + (1 - part) * fake
