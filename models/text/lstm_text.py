"""A language model of characters, or rather of the bytes that they consist of, with an LSTM."""

import math
import textwrap
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import require
from models.data.dataset import Dataset, Examples
from models.data.text import EMPTY
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATION_BATCH = 64
BYTES = 256
SAMPLE_BYTES = 800
TEMPERATURE = 0.7
"""Below 1, likely bytes are drawn yet more often than they are likely, which reads better."""
_LINE = 100


class LanguageModel(nn.Module):
    """An embedding of bytes, an LSTM, and a linear layer that scores the next byte."""

    def __init__(self, embedding_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size, num_layers, batch_first=True)
        self.head = nn.Linear(hidden_size, BYTES)

    def forward(
        self, text: Tensor, memory: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, T), int64 -> logits of each next byte (B, T, BYTES), and the memory to go on with."""
        outputs, memory = self.lstm(self.embedding(text), memory)  # (B, T, E) -> (B, T, H)
        return self.head(outputs), memory


class TextGeneration(Task):
    """Predict the next byte of a text.

    Options: `embedding_size`, `hidden_size` and `num_layers` of the network, and the `prompt` that its
    sample goes on from.
    """

    kind = "text"
    metric = "bits-per-character"
    maximize = False
    metrics = ("unigram-bits-per-character", "accuracy")

    def __init__(
        self,
        dataset: Dataset,
        embedding_size: int = 64,
        hidden_size: int = 128,
        num_layers: int = 1,
        prompt: str = "The ",
    ) -> None:
        super().__init__(dataset)
        require(embedding_size >= 1, "embedding_size", ">= 1", embedding_size)
        require(hidden_size >= 1, "hidden_size", ">= 1", hidden_size)
        require(num_layers >= 1, "num_layers", ">= 1", num_layers)
        require(bool(prompt), "prompt", "text of at least one character", prompt)
        self.sizes = (embedding_size, hidden_size, num_layers)
        self.prompt = prompt

    def build(self) -> nn.Module:
        """Return the network."""
        return LanguageModel(*self.sizes)

    @property
    def objectives(self) -> Sequence[Objective]:
        """Cross-entropy of the next byte, by Adam with clipped gradients (Pascanu et al. 2013)."""
        adam = OptimizerChoice("adam", 3e-3)
        return [Objective("loss", _cross_entropy, optimizer=adam, max_grad_norm=1.0, count=_num_bytes)]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return the bytes as indices of their embeddings."""
        return {"text": examples["text"].long()}

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of bits, of the network and of a guess by the frequency of bytes alone.

        A character may be several bytes; all of their bits count for the one character.
        """
        device = next(model.parameters()).device
        targets = data["text"][:, 1:].long()
        known = targets != EMPTY
        characters = float((known & (targets & 0xC0 != 0x80)).sum())  # bytes that continue none
        nats, right = 0.0, 0.0
        for text in data["text"].long().split(EVALUATION_BATCH):
            logits = model(text[:, :-1].to(device))[0].cpu()
            nats += float(_next_byte_loss(logits.double(), text[:, 1:], "sum"))
            right += float((logits.argmax(-1) == text[:, 1:])[text[:, 1:] != EMPTY].sum())
        return {
            "bits-per-character": (nats / math.log(2), characters),
            "unigram-bits-per-character": (float(self._unigram_bits[targets[known]].sum()), characters),
            "accuracy": (right, float(known.sum())),
        }

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Show how the network goes on from the prompt."""
        from matplotlib.figure import Figure

        sample = self.prompt + self.generate(model, generator)
        shown = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in sample)
        lines = [part for line in shown.split("\n") for part in textwrap.wrap(line, _LINE) or [""]]
        figure = Figure(figsize=(8.5, 0.8 + 0.17 * len(lines)), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_title(f"A sample that goes on from {self.prompt!r}", loc="left", parse_math=False)
        # A dollar sign is text here, not the start of a formula.
        text = "\n".join(lines)
        axes.text(0, 1, text, va="top", family="monospace", fontsize=9, parse_math=False)
        return {"sample": figure}

    def generate(self, model: nn.Module, generator: torch.Generator, num_bytes: int = SAMPLE_BYTES) -> str:
        """Return text of `num_bytes` UTF-8 bytes that goes on from the prompt; broken characters are �."""
        device = next(model.parameters()).device
        step, memory = torch.tensor([[EMPTY, *self.prompt.encode()]]), None
        drawn: list[int] = []
        for _ in range(num_bytes):
            logits, memory = model(step.to(device), memory)
            chances = (logits[0, -1].double().cpu() / TEMPERATURE).softmax(0)
            chances[EMPTY] = 0  # which is no text
            step = torch.multinomial(chances, 1, generator=generator)[None]  # (1,) -> (1, 1)
            drawn.append(int(step))
        return bytes(drawn).decode(errors="replace")

    @cached_property
    def _unigram_bits(self) -> Tensor:
        """Bits (BYTES,) of each byte under its frequency in the training text, each seen once more."""
        counts = torch.bincount(self.dataset.train["text"][:, 1:].flatten().long(), minlength=BYTES)
        counts[EMPTY] = -1
        frequencies = (counts + 1).double() / (counts + 1).sum()
        return -frequencies.log2()


def _cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    text = batch["text"]
    return _next_byte_loss(model(text[:, :-1])[0], text[:, 1:], "mean")


def _num_bytes(batch: Batch) -> int:
    return int((batch["text"][:, 1:] != EMPTY).sum())


def _next_byte_loss(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """(B, T, BYTES), (B, T) -> a scalar, in nats, over the targets that are not EMPTY."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=EMPTY, reduction=reduction)
