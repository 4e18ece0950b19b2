"""Q-networks for pictures, and dueling ones, against their papers."""

import pytest
import torch
from torch import nn

from models.control.frames import Frames
from models.control.q_networks import Dueling, Pixels, q_network

SCREEN = Frames(stack=4, height=84, width=84, channels=1, white=255.0)
SMALL = Frames(stack=1, height=10, width=10, channels=4, white=1.0)


def parameters(network: nn.Module) -> list[int]:
    return [weight.numel() for weight in network.parameters()]


def test_a_dueling_network_adds_what_is_above_the_mean_advantage() -> None:
    head = Dueling(seen=1, hidden_size=1, num_actions=2)
    for stream in (head.value, head.advantage):
        hidden, _, last = stream
        for layer in (hidden, last):
            nn.init.ones_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    head.value[2].bias.data.fill_(4.0)  # type: ignore[operator, union-attr]
    head.advantage[2].weight.data[:] = torch.tensor([[1.0], [3.0]])  # type: ignore[index, operator, union-attr]
    # V = 1 + 4, A = (1, 3), whose mean is 2.
    assert head(torch.ones(1, 1)).tolist() == [[5 + 1 - 2, 5 + 3 - 2]]


def test_the_network_of_the_nature_paper() -> None:
    network = q_network(0, 6, 512, SCREEN, dueling=False)
    convolutions = [8_192, 32, 32_768, 64, 36_864, 64]
    assert parameters(network) == [*convolutions, 7 * 7 * 64 * 512, 512, 512 * 6, 6]
    assert network(torch.zeros(2, 4, 84, 84, 1, dtype=torch.uint8)).shape == (2, 6)


def test_the_network_of_minatar() -> None:
    network = q_network(0, 3, 128, SMALL, dueling=False)
    assert parameters(network) == [16 * 4 * 9, 16, 16 * 8 * 8 * 128, 128, 128 * 3, 3]
    streams = parameters(q_network(0, 3, 128, SMALL, dueling=True))[2:]
    assert streams == [16 * 8 * 8 * 128, 128, 128, 1, 16 * 8 * 8 * 128, 128, 128 * 3, 3]


@pytest.mark.parametrize(("side", "layers"), [(3, 1), (35, 1), (36, 3), (96, 3)])
def test_pictures_of_any_size_are_seen(side: int, layers: int) -> None:
    network = q_network(0, 2, 8, Frames(1, side, side + 5, 3, 255.0), dueling=False)
    assert sum(isinstance(layer, nn.Conv2d) for layer in network) == layers
    assert network(torch.zeros(2, side, side + 5, 3, dtype=torch.uint8)).shape == (2, 2)


def test_pixels_become_planes_from_0_to_1() -> None:
    frames = Frames(stack=2, height=1, width=1, channels=2, white=255.0)
    shown = torch.tensor([[[[[0, 51]]], [[[102, 255]]]]], dtype=torch.uint8)  # (1, 2, 1, 1, 2)
    planes = Pixels(frames)(shown)
    assert planes.shape == (1, 4, 1, 1)
    assert planes.flatten().tolist() == pytest.approx([0, 0.2, 0.4, 1])
