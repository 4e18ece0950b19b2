"""Drawing the transitions more often from which there is more to learn."""

import torch
from torch import Tensor, nn

LEAST = 1e-6
"""Added to an error, so that a transition without one is drawn again some day."""


class Priorities(nn.Module):
    """How often each slot of a memory is drawn (Schaul et al. 2016, arXiv:1511.05952, proportional variant).

    Slot i is drawn with P(i) = p_i^exponent / sum of all (eq. 1), with p_i its last error in size. It then
    counts (N P(i))^-correction, over the largest such weight of the batch (section 3.4), where the correction
    rises linearly to 1 within `steps` transitions. A new transition has the largest priority so far.
    """

    priority: Tensor
    highest: Tensor

    def __init__(self, capacity: int, exponent: float, correction: float, steps: int) -> None:
        super().__init__()
        self.exponent, self.correction, self.steps = exponent, correction, steps
        # p_i^exponent; 0 where there is nothing to draw.
        self.register_buffer("priority", torch.zeros(capacity))
        self.register_buffer("highest", torch.ones(()))

    def admit(self, slots: Tensor) -> None:
        """Let new transitions be drawn before long."""
        self.priority[slots] = self.highest

    def forget(self, slots: Tensor) -> None:
        """Draw these slots no more."""
        self.priority[slots] = 0.0

    def draw(self, size: int, count: int, added: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw slots (size,), one from each of `size` equal parts of all priorities; and weights.

        `count` transitions can be drawn, and `added` ever came.
        """
        # On the CPU, where sums of floats repeat.
        priority = self.priority.cpu().double()
        sums = priority.cumsum(0)
        total = sums[-1]
        parts = torch.arange(size) + torch.rand(size, generator=generator, dtype=torch.float64)
        below = torch.nextafter(total, torch.zeros_like(total))  # rounding could make it the whole sum
        slots = torch.searchsorted(sums, torch.minimum(parts / size * total, below), right=True)
        weights = (count * priority[slots] / total) ** -self._correction(added)
        return slots, (weights / weights.max()).float()

    def learn(self, slots: Tensor, errors: Tensor) -> None:
        """Take over the errors that the network has now (B,); of a slot that is there twice the largest."""
        changed = (errors.float().abs() + LEAST) ** self.exponent
        # Not by an index: which of several it would keep is not said.
        self.priority.scatter_reduce_(0, slots.to(self.priority.device), changed, "amax", include_self=False)
        torch.maximum(self.highest, changed.max(), out=self.highest)

    def _correction(self, added: int) -> float:
        return self.correction + (1 - self.correction) * min(added / self.steps, 1.0)
