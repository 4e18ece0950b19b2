"""What tasks share that make one text of another: an encoder-decoder with attention, and how it writes."""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from models.core.config import require
from models.data.dataset import Dataset, Examples
from models.data.parallel_text import padded
from models.task import Batch, Objective, OptimizerChoice, Task
from models.text.encoder_decoder import DECODERS, LUONG, EncoderDecoder
from models.text.length_buckets import bucketed_by
from models.text.teacher_forcing import cross_entropy, forced, losses_of, num_tokens
from models.text.translation_scores import TOKENIZERS
from models.text.vocabulary import BYTES, load_vocabulary
from models.text.writer import EVALUATION_BATCH, Writer

LOG_PROBS = 2**24
"""Log-probabilities that an evaluation computes at a time, unless those of a single text are more."""


class TextToText(Task):
    """Write the text that belongs to another, token by token.

    These are options of every such task.
    `attention`, "luong" (Luong et al. 2015) or "bahdanau" (Bahdanau et al. 2015), which is slower;
    `copy`, whether tokens may also be copied from the source (See et al. 2017);
    `backbone`, "bytes", or whose tokens are read and written: "minilm", or the absolute path of a
    tokenizer.json or its folder;
    `embedding_size` and `hidden_size`, sizes of the network, the latter an even number;
    `beam`, beginnings that an evaluation goes on with, 1 takes the likeliest token each time;
    `length_penalty`, above 0 long texts lose less by their length;
    `longest`, tokens of the longest text that is written, 0 leaves it to the task;
    `length_buckets`, how many batches at a time are drawn and then sorted by length, so that less of them is
    padding, 0 for none; it changes which texts share a batch, and so the result;
    `bleu_tokenizer`, how BLEU finds words: "13a", "intl", "zh", "char" or "none" of sacrebleu.
    """

    pairs: str
    """What its examples are called in lines for people."""
    left_out: int = logging.WARNING
    """Level of the line that some of them are left out."""
    usual_longest: int = 0
    """`Writer.longest` where the option leaves it to the task."""

    def __init__(
        self,
        dataset: Dataset,
        attention: str = LUONG,
        copy: bool = False,
        backbone: str = BYTES,
        embedding_size: int = 64,
        hidden_size: int = 128,
        beam: int = 4,
        length_penalty: float = 0.6,
        longest: int = 0,
        length_buckets: int = 0,
        bleu_tokenizer: str = "13a",
    ) -> None:
        super().__init__(dataset)
        require(attention in DECODERS, "attention", " or ".join(map(repr, DECODERS)), attention)
        require(embedding_size >= 1, "embedding_size", ">= 1", embedding_size)
        even = hidden_size >= 2 and hidden_size % 2 == 0
        require(even, "hidden_size", "an even number >= 2", hidden_size)
        require(1 <= beam <= 100, "beam", "1 to 100", beam)
        require(0 <= length_penalty <= 5, "length_penalty", "0 to 5", length_penalty)
        require(longest >= 0, "longest", ">= 0", longest)
        require(length_buckets >= 0, "length_buckets", ">= 0", length_buckets)
        known = " or ".join(map(repr, TOKENIZERS))
        require(bleu_tokenizer in TOKENIZERS, "bleu_tokenizer", known, bleu_tokenizer)
        self.writer = Writer(load_vocabulary(backbone), beam, length_penalty, longest or self.usual_longest)
        self.sizes = (self.writer.vocabulary.size, embedding_size, hidden_size)
        self.attention, self.copy = attention, copy
        self.length_buckets, self.bleu_tokenizer = length_buckets, bleu_tokenizer
        self.agreed = (self.writer.vocabulary.sha256,)

    def build(self) -> nn.Module:
        """Return the network."""
        return EncoderDecoder(*self.sizes, self.attention, self.copy)

    @property
    def objectives(self) -> Sequence[Objective]:
        """Cross-entropy of the next token after the true ones, by Adam with clipped gradients."""
        adam = OptimizerChoice("adam", 3e-3)
        return [Objective("loss", cross_entropy, optimizer=adam, max_grad_norm=1.0, count=num_tokens)]

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        """Yield the batches of one local epoch, shuffled, each as long as its longest text."""
        lengths = (data["source"] != 0).sum(1) + (data["target"] != 0).sum(1)
        for rows in bucketed_by(lengths, batch_size, self.length_buckets, generator):
            yield self.batch(data.at(rows), generator)

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return the tokens of both texts."""
        return forced(self.writer.vocabulary, examples["source"], examples["target"])

    def notes(self) -> Sequence[tuple[int, str]]:
        """Say how many pairs the loader has left out."""
        if skipped := self.dataset.info.get("skipped", 0):
            line = f"{skipped:,} {self.pairs} are left out, as one of their texts is longer than max_bytes"
            return [(self.left_out, f"{line}; a larger max_bytes in dataset-options takes them")]
        return ()

    @abstractmethod
    def source(self, turns: Sequence[str]) -> str:
        """Return the text to which the turns of a conversation lead, as the network reads it."""

    @torch.no_grad()
    def answer(self, model: nn.Module, turns: Sequence[str]) -> str:
        """Return what is written after these turns; of a model in eval mode."""
        (written,) = self.writer.write(model, padded([self.source(turns)]))
        return written

    def loss(self, model: nn.Module, data: Examples) -> tuple[float, int]:
        """Return the loss summed over the tokens of all targets, and how many they are."""
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for rows in torch.arange(len(data)).split(EVALUATION_BATCH):
            batch = self.batch(data.at(rows), torch.Generator())
            at_once = max(1, LOG_PROBS // (batch["labels"].shape[1] * self.writer.vocabulary.size))
            parts = (batch[name].split(at_once) for name in ("source", "inputs", "labels"))
            losses = []
            for source, inputs, labels in zip(*parts, strict=True):
                log_probs = model(source.to(device), inputs.to(device))
                losses.append(losses_of(log_probs, labels.to(device)).cpu())
            total += float(torch.cat(losses).double().sum())
            count += num_tokens(batch)
        return total, count
