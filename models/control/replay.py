"""The transitions that a Q-learner remembers."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from models.control.episodes import Step
from models.control.priorities import Priorities
from models.task import Batch


class Replay(nn.Module, ABC):
    """A memory of transitions, in buffers that travel with the state of a model.

    Transition n of a client's life has slot n % capacity.
    """

    added: Tensor

    def __init__(self, capacity: int, priorities: Priorities | None = None) -> None:
        super().__init__()
        self.capacity = capacity
        self.priorities = priorities
        # All that ever came, so it counts the steps that a client has taken in its life.
        self.register_buffer("added", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        """Return how many transitions can be drawn."""
        return min(int(self.added), self.capacity)

    def begin(self, num_environments: int) -> None:
        """Expect new episodes in all environments."""

    @abstractmethod
    def keep(self, step: Step) -> None:
        """Remember the transitions of a step, over the oldest ones."""

    @abstractmethod
    def transitions(self, slots: Tensor) -> Batch:
        """Return the transitions at these slots (B,)."""

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Return `size` transitions, drawn with replacement; by priorities, also their slots and weights."""
        if self.priorities is None:
            return self.transitions(self._any(size, generator))
        slots, weight = self.priorities.draw(size, len(self), int(self.added), generator)
        return {**self.transitions(slots), "slot": slots, "weight": weight}

    def _any(self, size: int, generator: torch.Generator) -> Tensor:
        """Draw slots, all alike."""
        return torch.randint(len(self), (size,), generator=generator)

    def _new_slots(self, count: int) -> Tensor:
        """Return the slots of as many new transitions, which may be drawn from now on."""
        slots = (int(self.added) + torch.arange(count)) % self.capacity
        self.added += count
        if self.priorities is not None:
            self.priorities.admit(slots)
        return slots


class ReplayBuffer(Replay):
    """The newest `capacity` transitions between lists of numbers, in a ring."""

    def __init__(self, capacity: int, observation_size: int, priorities: Priorities | None = None) -> None:
        super().__init__(capacity, priorities)
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

    def keep(self, step: Step) -> None:
        """Write what the environments that acted have gone through."""
        self.add({name: column[step.acted] for name, column in step.transitions.items()})

    def add(self, transitions: Batch) -> None:
        """Write transitions, column -> (N, ...) with N <= capacity, over the oldest ones."""
        slots = self._new_slots(len(transitions["action"]))
        for name in self.columns:
            buffer = self.get_buffer(name)
            buffer[slots] = transitions[name].to(buffer)

    def transitions(self, slots: Tensor) -> Batch:
        """Return the rows of all columns."""
        return {name: self.get_buffer(name)[slots] for name in self.columns}
