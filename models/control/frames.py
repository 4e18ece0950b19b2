"""Pictures that an agent sees, and how many of them at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from models.core.config import require


@dataclass(frozen=True)
class Frames:
    """What the numbers of an observation stand for: `stack` frames, the newest last."""

    stack: int
    height: int
    width: int
    channels: int
    white: float
    """Largest value of a pixel."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one frame, (H, W, C)."""
        return self.height, self.width, self.channels

    @property
    def num_bytes(self) -> int:
        """What one frame takes."""
        return self.height * self.width * self.channels

    def check_capacity(self, capacity: int, num_environments: int) -> None:
        """Raise UserError for a memory too small for the stacks of a client's environments."""
        least = num_environments * (self.stack + 2)
        allowed = f">= {least}, {self.stack + 2} frames of each environment of a client"
        require(capacity >= least, "capacity", allowed, capacity)

    def stacked(self, observation: Tensor) -> Tensor:
        """Observations in any of gymnasium's shapes, (B, H, W) to (B, K, H, W, C) -> (B, K, H, W, C)."""
        return observation.reshape(len(observation), self.stack, *self.shape)


def frames_of(info: Mapping[str, Any]) -> Frames | None:
    """Return what a dataset of environments says of its pictures; None where observations are numbers."""
    if "frame_height" not in info:
        return None
    stack, height, width, channels = (
        int(info[f"frame_{name}"]) for name in ("stack", "height", "width", "channels")
    )
    return Frames(stack, height, width, channels, float(info["max_value"]))
