"""Attention: how much each place of a source matters to a decoder's state."""

import math
from typing import NamedTuple

from torch import Tensor, nn


class Memory(NamedTuple):
    """What an encoder has made of sources; the first axis of all is the batch."""

    tokens: Tensor
    """(B, S), those of the sources."""
    inside: Tensor
    """(B, S), whether a place holds a token; all others are padding."""
    states: Tensor
    """(B, S, H), the encoder's outputs."""
    keys: Tensor
    """(B, S, A), what the attention makes of them once, before the first query."""
    last: Tensor
    """(B, H), the encoder's outputs at both ends, with which a decoder begins."""

    def repeat(self, times: int) -> "Memory":
        """Return each row so many times, one after the other."""
        return Memory(*(each.repeat_interleave(times, 0) for each in self))


class Additive(nn.Module):
    """Scores v · tanh(W s + U h) (Bahdanau et al. 2015, arXiv:1409.0473, appendix A.1.2)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.of_state = nn.Linear(size, size)
        self.of_source = nn.Linear(size, size, bias=False)
        self.score = nn.Linear(size, 1, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        """(B, S, H) -> (B, S, H), which serve every query."""
        keys: Tensor = self.of_source(states)
        return keys

    def forward(self, query: Tensor, memory: Memory) -> Tensor:
        """(B, T, H) -> weights (B, T, S) that sum to 1 over S, and are 0 on padding."""
        # (B, T, 1, H) + (B, 1, S, H)
        together = (self.of_state(query).unsqueeze(2) + memory.keys.unsqueeze(1)).tanh()
        return weights_of(self.score(together).squeeze(3), memory.inside)


class Multiplicative(nn.Module):
    """Scores s · W h, called "general" (Luong et al. 2015, arXiv:1508.04025, eq. 8)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.of_source = nn.Linear(size, size, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        """(B, S, H) -> (B, S, H), which serve every query."""
        keys: Tensor = self.of_source(states)
        return keys

    def forward(self, query: Tensor, memory: Memory) -> Tensor:
        """(B, T, H) -> weights (B, T, S) that sum to 1 over S, and are 0 on padding."""
        return weights_of(query @ memory.keys.transpose(1, 2), memory.inside)


def weights_of(scores: Tensor, inside: Tensor) -> Tensor:
    """Return the softmax of scores (B, T, S) over the places that are `inside` (B, S)."""
    return scores.masked_fill(~inside.unsqueeze(1), -math.inf).softmax(2)
