"""Networks that say what each action is worth."""

from torch import Tensor, nn

from models.control.frames import Frames

NATURE_SIDE = 36
"""Pixels of the shorter side from which the three convolutions of the large network have something to see."""


def q_network(
    observation_size: int, num_actions: int, hidden_size: int, frames: Frames | None, dueling: bool
) -> nn.Sequential:
    """Observations (B, O) or (B, K, H, W, C) -> Q-values (B, num_actions).

    Numbers go through two hidden layers. Pictures go through convolutions and one hidden layer: those of
    Mnih et al. 2015 (doi:10.1038/nature14236, "Model architecture"), or for small pictures the one of Young &
    Tian 2019 (arXiv:1903.03176). Where the network is `dueling`, two streams take the last hidden layer's
    place.
    """
    if frames:
        layers, seen = _seeing(frames)
    else:
        layers, seen = [nn.Linear(observation_size, hidden_size), nn.ReLU()], hidden_size
    if dueling:
        return nn.Sequential(*layers, Dueling(seen, hidden_size, num_actions))
    return nn.Sequential(*layers, *_stream(seen, hidden_size, num_actions))


class Dueling(nn.Module):
    """Q(s, a) = V(s) + A(s, a) - mean of A(s, .) (Wang et al. 2016, arXiv:1511.06581, eq. 9)."""

    def __init__(self, seen: int, hidden_size: int, num_actions: int) -> None:
        super().__init__()
        self.value = nn.Sequential(*_stream(seen, hidden_size, 1))
        self.advantage = nn.Sequential(*_stream(seen, hidden_size, num_actions))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, num_actions)."""
        advantage = self.advantage(features)
        values: Tensor = self.value(features) + advantage - advantage.mean(1, keepdim=True)
        return values


class Pixels(nn.Module):
    """Makes planes from 0 to 1 of frames: (B, K, H, W, C) -> (B, K * C, H, W)."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, observation: Tensor) -> Tensor:
        """Take whole numbers of any type."""
        planes = self.frames.stacked(observation).permute(0, 1, 4, 2, 3).flatten(1, 2)
        return planes.float() / self.frames.white


def _seeing(frames: Frames) -> tuple[list[nn.Module], int]:
    """Return the layers that look at pictures, and the numbers that they make of one observation."""
    planes, height, width = frames.stack * frames.channels, frames.height, frames.width
    large, small = [(32, 8, 4), (64, 4, 2), (64, 3, 1)], [(16, 3, 1)]
    layers: list[nn.Module] = [Pixels(frames)]
    for channels, kernel, stride in large if min(height, width) >= NATURE_SIDE else small:
        layers += [nn.Conv2d(planes, channels, kernel, stride), nn.ReLU()]
        planes, height, width = channels, (height - kernel) // stride + 1, (width - kernel) // stride + 1
    return [*layers, nn.Flatten()], planes * height * width


def _stream(seen: int, hidden_size: int, size: int) -> list[nn.Module]:
    return [nn.Linear(seen, hidden_size), nn.ReLU(), nn.Linear(hidden_size, size)]
