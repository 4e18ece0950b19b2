"""The transitions that a Q-learner remembers."""

import torch
from torch import Tensor, nn

from models.task import Batch


class ReplayBuffer(nn.Module):
    """The newest `capacity` transitions, in a ring of buffers that travel with the state of a model."""

    added: Tensor

    def __init__(self, capacity: int, observation_size: int) -> None:
        super().__init__()
        self.capacity = capacity
        columns = {
            "observation": torch.zeros(capacity, observation_size),
            "action": torch.zeros(capacity, dtype=torch.int32),
            "reward": torch.zeros(capacity),
            "following": torch.zeros(capacity, observation_size),
            "terminated": torch.zeros(capacity, dtype=torch.bool),
        }
        self.columns = tuple(columns)
        for name, column in columns.items():
            self.register_buffer(name, column)
        # All that ever came, so it counts the steps that a client has taken in its life.
        self.register_buffer("added", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return min(int(self.added), self.capacity)

    def add(self, transitions: Batch) -> None:
        """Write transitions, column -> (N, ...) with N <= capacity, over the oldest ones."""
        count = len(transitions["action"])
        slots = (int(self.added) + torch.arange(count)) % self.capacity
        for name in self.columns:
            buffer = self.get_buffer(name)
            buffer[slots] = transitions[name].to(buffer)
        self.added += count

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Return `size` transitions, drawn with replacement."""
        rows = torch.randint(len(self), (size,), generator=generator)
        return {name: self.get_buffer(name)[rows] for name in self.columns}
