"""How the vectors of several modalities become one, of which an example may lack some.

Each has linear layers of its own for each modality, whose results are added up: that is a linear layer of all
vectors one behind the other, cut into parts that can be averaged apart.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

HEADS = 4
HIDDEN = -1e9
"""Score of a modality that an example lacks; its softmax is 0."""

Given = Mapping[str, Tensor]
"""Modality -> a column: vectors (B, S), or whether an example has it (B,), 1 or 0."""


def _of_each(names: Sequence[str], size: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(size, outputs) for name in names})


class Concatenation(nn.Module):
    """A layer over all vectors one behind the other; zeros stand for what is lacking."""

    def __init__(self, names: Sequence[str], size: int, outputs: int) -> None:
        super().__init__()
        self.layer = _of_each(names, size, outputs)

    def forward(self, vectors: Given, has: Given) -> Tensor:
        """Vectors of those modalities that some have, and who has them, of all -> (B, outputs)."""
        return torch.stack(_in_place(self.layer, vectors, has)).sum(0).relu()


class Gated(nn.Module):
    """The gated multimodal unit, for any number of modalities (Arevalo et al. 2017, arXiv:1702.01992).

    Each makes a proposal, and all together say how much of each counts, number by number. The gates are a
    softmax, which for two modalities is the paper's sigmoid, over those that an example has.
    """

    def __init__(self, names: Sequence[str], size: int, outputs: int) -> None:
        super().__init__()
        self.names, self.outputs = tuple(names), outputs
        self.proposal = _of_each(names, size, outputs)
        self.gate = _of_each(names, size, outputs * len(names))

    def forward(self, vectors: Given, has: Given) -> Tensor:
        """Vectors of those modalities that some have, and who has them, of all -> (B, outputs)."""
        scores = torch.stack(_in_place(self.gate, vectors, has)).sum(0)  # (B, M * outputs)
        present = torch.stack([has[name] for name in self.names], 1)[:, :, None]  # (B, M, 1)
        hidden = scores.unflatten(1, (len(self.names), self.outputs)) + HIDDEN * (1 - present)
        proposals = torch.stack(_in_place(self.proposal, vectors, has), 1).tanh()  # (B, M, outputs)
        found: Tensor = (hidden.softmax(1) * present * proposals).sum(1)
        return found


class Attention(nn.Module):
    """A transformer's layer over the vectors and a learned one, which is read (Vaswani et al. 2017).

    arXiv:1706.03762; normed before and not after (Xiong et al. 2020, arXiv:2002.04745). Nothing attends to
    what an example lacks.
    """

    def __init__(self, names: Sequence[str], size: int, outputs: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.token = _of_each(names, size, outputs)
        self.read = nn.Parameter(torch.randn(outputs) * 0.02)
        self.before, self.after = nn.LayerNorm(outputs), nn.LayerNorm(outputs)
        self.all_three = nn.Linear(outputs, 3 * outputs)  # queries, keys and values
        self.out = nn.Linear(outputs, outputs)
        self.wide = nn.Sequential(nn.Linear(outputs, 2 * outputs), nn.GELU(), nn.Linear(2 * outputs, outputs))

    def forward(self, vectors: Given, has: Given) -> Tensor:
        """Vectors of those modalities that some have, and who has them, of all -> (B, outputs)."""
        present = torch.stack([has[name] for name in self.names], 1)  # (B, M)
        seen = torch.cat([torch.ones_like(present[:, :1]), present], 1)  # (B, 1 + M)
        first = self.read.expand(len(present), -1)
        tokens = torch.stack([first, *_in_place(self.token, vectors, has)], 1)  # (B, 1 + M, outputs)
        tokens = tokens + self._attend(self.before(tokens), seen)
        read = tokens[:, 0]
        found: Tensor = read + self.wide(self.after(read))
        return found

    def _attend(self, tokens: Tensor, seen: Tensor) -> Tensor:
        # (B, T, 3 * outputs) -> three of (B, H, T, outputs / H)
        parts = self.all_three(tokens).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        scores = query @ key.transpose(2, 3) / key.shape[-1] ** 0.5  # (B, H, T, T)
        weights = (scores + HIDDEN * (1 - seen)[:, None, None]).softmax(3)
        mixed: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return mixed


def _in_place(layers: nn.ModuleDict, vectors: Given, has: Given) -> list[Tensor]:
    """Return what each layer makes of its modality (B, outputs), zeros for examples that lack it."""
    made = []
    for name, layer in layers.items():
        size = cast(nn.Linear, layer).out_features
        given = layer(vectors[name]) if name in vectors else has[name].new_zeros(size)
        made.append(given * has[name][:, None])
    return made


FUSIONS: Mapping[str, Callable[[Sequence[str], int, int], nn.Module]] = {
    "concat": Concatenation,
    "gated": Gated,
    "attention": Attention,
}
