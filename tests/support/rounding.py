"""What rounding does to a run, for tests that compare two ways of computing the same."""

from collections.abc import Mapping

import torch
from torch import Tensor


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the largest difference between two entries of the same name and place."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def root_mean_square(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return that of all differences; it varies less than the largest one, which is that of one weight."""
    assert one.keys() == other.keys()
    differences = torch.cat([(one[name] - other[name]).double().flatten() for name in one])
    return float(differences.square().mean().sqrt())


def one_ulp_off(state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return the state with every float moved to its next neighbour, up or down as the seed has it."""
    generator = torch.Generator().manual_seed(seed)

    def moved(tensor: Tensor) -> Tensor:
        up = torch.rand(tensor.shape, generator=generator) < 0.5
        return torch.nextafter(tensor, torch.where(up, torch.inf, -torch.inf).to(tensor))

    return {name: moved(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
