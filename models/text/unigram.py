"""The simplest language model there is: each token as likely as it is in training, whatever stands before."""

import torch
from torch import Tensor

from models.text.vocabulary import PAD

AT_ONCE = 1024
"""Texts whose tokens are counted at a time."""


class Unigram:
    """Probabilities of tokens by how often they are labels, each counted once more than it occurs.

    Without that, a token that training lacks would be impossible.
    """

    def __init__(self, vocabulary_size: int) -> None:
        self.counts = torch.zeros(vocabulary_size, dtype=torch.int64)

    def learn(self, labels: Tensor) -> None:
        """Count the tokens of labels (B, T), of which PAD is none."""
        self.counts += labels.flatten().bincount(minlength=len(self.counts))

    def loss(self, labels: Tensor) -> float:
        """Return the loss summed over labels (B, T), in nats."""
        counts = self.counts.double() + 1
        counts[PAD] = 0
        log_probs = counts.log() - counts.sum().log()
        return -float(log_probs[labels[labels != PAD]].sum())
