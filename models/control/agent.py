"""What a Q-learner remembers between rounds."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.control.frame_replay import FrameReplay
from models.control.frames import frames_of
from models.control.priorities import Priorities
from models.control.q_networks import q_network
from models.control.replay import Replay, ReplayBuffer


class Agent(nn.Module):
    """All that a learner remembers: two Q-networks, its transitions and how often it has learned."""

    updates: Tensor
    replay: Replay

    def __init__(
        self,
        info: Mapping[str, Any],
        hidden_size: int,
        capacity: int,
        dueling: bool = False,
        priorities: Priorities | None = None,
    ) -> None:
        """Take what a dataset says of its environments."""
        super().__init__()
        size, frames = int(info["observation_size"]), frames_of(info)

        def network() -> nn.Sequential:
            return q_network(size, int(info["num_actions"]), hidden_size, frames, dueling)

        self.online, self.target = network(), network().requires_grad_(False)
        if frames:
            self.replay = FrameReplay(capacity, frames, priorities)
        else:
            self.replay = ReplayBuffer(capacity, size, priorities)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.sync_target()

    def forward(self, observation: Tensor) -> Tensor:
        """(B, O) or (B, K, H, W, C) -> Q-values (B, num_actions)."""
        values: Tensor = self.online(observation)
        return values

    def sync_target(self) -> None:
        """Copy the online network to the target network."""
        self.target.load_state_dict(self.online.state_dict())
