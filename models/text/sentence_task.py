"""What tasks share that read sentences with a transformer."""

import logging
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from models.core.config import require
from models.data.dataset import Dataset, Examples
from models.data.tokens import LearnedTokens
from models.task import Batch, Task
from models.text.backbone import Backbone
from models.text.length_buckets import bucketed
from models.text.pieces import LongSentences, Piece, Sentences


class SentenceTask(Task):
    """A task on sentences of words, of which those that are too long are read in pieces.

    These are options of every such task.
    `warmup_steps`, the first steps of each round, over which the learning rate rises to its value;
    `long_sentences`, "split" or "cut", what becomes of a sentence that is longer than the network;
    `overlap`, the words that two pieces of a sentence share;
    `length_buckets`, how many batches at a time are drawn and then sorted by length, so that less of them is
    padding, 0 for none; it changes which sentences share a batch, and so the result.
    """

    def __init__(
        self,
        dataset: Dataset,
        backbone: Backbone,
        warmup_steps: int,
        long_sentences: str,
        overlap: int,
        length_buckets: int,
    ) -> None:
        super().__init__(dataset)
        require(warmup_steps >= 0, "warmup_steps", ">= 0", warmup_steps)
        require(length_buckets >= 0, "length_buckets", ">= 0", length_buckets)
        self.length_buckets = length_buckets
        self.backbone, self.warmup_steps = backbone, warmup_steps
        self.long_sentences = LongSentences(backbone, long_sentences, overlap)

    @abstractmethod
    def words(self, data: Examples) -> list[list[str]]:
        """Return the words of each example."""

    @abstractmethod
    def ask(
        self, data: Examples, sentences: Sentences, pieces: Sequence[Piece], generator: torch.Generator
    ) -> Batch:
        """Return what the loss sees of some pieces of the data, whose words are `sentences`."""

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        """Yield the batches of one local epoch: pieces, shuffled, each as long as its longest."""
        sentences = self.words(data)
        pieces = self.long_sentences.pieces(sentences)
        for rows in bucketed(pieces, batch_size, self.length_buckets, generator):
            yield self.ask(data, sentences, [pieces[row] for row in rows.tolist()], generator)

    def num_batches(self, data: Examples, batch_size: int) -> int:
        """Return how many batches of pieces an epoch has."""
        return math.ceil(len(self.long_sentences.pieces(self.words(data))) / batch_size)

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return all pieces of the examples as one batch."""
        sentences = self.words(examples)
        return self.ask(examples, sentences, self.long_sentences.pieces(sentences), generator)

    def learned_tokens(self) -> LearnedTokens | None:
        """Return the tokens of a network from scratch, which begins with learning them."""
        return self.backbone.learned_tokens()

    def notes(self) -> Sequence[tuple[int, str]]:
        """Say how many sentences are longer than the network, and what is lost of them."""
        lines = []
        for part, data in (("training", self.dataset.train), ("held-out", self.dataset.test)):
            if line := self.long_sentences.note(self.words(data)):
                lost = "cut off" in line
                lines.append((logging.WARNING if lost else logging.INFO, f"{part} examples: {line}"))
        return lines
