"""Training with the true tokens before each: what a network is shown, and its loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.task import Batch
from models.text.vocabulary import PAD, Vocabulary


def forced(vocabulary: Vocabulary, source: Tensor, target: Tensor) -> Batch:
    """Return tokens with PAD behind: `source` (B, S), `inputs` and `labels` (B, 1 + T).

    Both texts are UTF-8 with zeros behind. A label is the token that follows on its input: inputs begin with
    `begin`, labels end with `end`.
    """
    read, written = vocabulary.encode(source), vocabulary.encode(target)
    column = written.new_full((len(written), 1), PAD)
    lengths = (written != PAD).sum(1, keepdim=True)
    labels = torch.cat([written, column], 1).scatter(1, lengths, vocabulary.end)
    inputs = torch.cat([column + vocabulary.begin, written], 1)
    return {"source": read, "inputs": inputs, "labels": labels}


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean over the labels (B, T) that are not PAD, in nats."""
    total = summed(model(batch["source"], batch["inputs"]), batch["labels"])
    return total / (batch["labels"] != PAD).sum().clamp(min=1)


def summed(log_probs: Tensor, labels: Tensor) -> Tensor:
    """(B, T, V), (B, T) -> a scalar, in nats."""
    return F.nll_loss(log_probs.flatten(0, 1), labels.flatten(), ignore_index=PAD, reduction="sum")


def losses_of(log_probs: Tensor, labels: Tensor) -> Tensor:
    """(B, T, V), (B, T) -> what `summed` is the sum of (B, T): of PAD, 0."""
    chosen = log_probs.gather(2, labels.unsqueeze(2)).squeeze(2)
    return -chosen.where(labels != PAD, 0)


def num_tokens(batch: Batch) -> int:
    """Return how many tokens of a batch the loss is the mean of."""
    return int((batch["labels"] != PAD).sum())
