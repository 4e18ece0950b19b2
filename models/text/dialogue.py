"""Dialogue: an encoder-decoder with attention that reads what was said and writes the next turn."""

import logging
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from models.data.dataset import Examples
from models.data.parallel_text import read
from models.data.turns import KIND, SEPARATOR, joined, window_of
from models.task import Metrics
from models.text.distinct import distinct
from models.text.text_to_text import TextToText
from models.text.translation_scores import LENGTH, bleu, bleu_counts, words
from models.text.unigram import AT_ONCE, Unigram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE = "unigram-perplexity"
DISTINCT = {"distinct-1": 1, "distinct-2": 2}
ROWS = 8
"""Dialogues that a figure shows."""
_LARGEST = 700.0
"""Nats a token whose perplexity is still a number."""


class Dialogue(TextToText):
    """Write the next turn of a dialogue, token by token, from the turns before it.

    Options: those of `TextToText`. A reply has 100 tokens at most unless `longest` says otherwise.

    Metrics: `perplexity` of the held-out replies, a token, where the tokens before it are given;
    `unigram-perplexity`, that of a model which knows how often each token occurs in the training replies and
    nothing else; `bleu` of what is written, from merged counts; `distinct-1` and `distinct-2`, the part of
    the words, and of the pairs of words, of all written replies that are different ones (Li et al. 2016),
    where what several clients write counts once for each of them; `length-ratio`, words written to those of
    the references.
    """

    kind = KIND
    pairs = "replies"
    left_out = logging.INFO  # those that one has been told of by an option, or by the page of the data
    metric = "perplexity"
    maximize = False
    metrics = (BASELINE, "bleu", *DISTINCT, LENGTH)
    usual_longest = 100

    def source(self, turns: Sequence[str]) -> str:
        """Return the last turns, as many as the examples have."""
        return joined(window_of(self.dataset).context(turns))

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of losses, the counts of BLEU, and how many words there are, and different ones."""
        if not len(data):
            return {}
        loss, tokens = self.loss(model, data)
        outputs = self.writer.write(model, data["source"])
        found = [words(output, self.bleu_tokenizer) for output in outputs]
        return {
            "perplexity": (loss, tokens),
            BASELINE: (self._unigram_loss(data), tokens),
            **bleu_counts(outputs, read(data["target"]), self.bleu_tokenizer),
            **{name: distinct(found, n) for name, n in DISTINCT.items()},
        }

    def ratios(self, metrics: Metrics) -> dict[str, float]:
        """Return perplexities of merged losses, the BLEU of merged counts, and the means of all else.

        Where no word was written, or no two, none is different: 0.
        """
        if not metrics:
            return {}
        losses = super().ratios({name: metrics[name] for name in ("perplexity", BASELINE)})
        different = {
            name: total / weight if weight else 0.0
            for name, (total, weight) in metrics.items()
            if name in DISTINCT
        }
        return {
            **{name: math.exp(min(loss, _LARGEST)) for name, loss in losses.items()},
            "bleu": bleu(metrics),
            **different,
            **super().ratios({LENGTH: metrics["bleu-length"]}),
        }

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw how a few held-out dialogues went on, and how the network goes on with them."""
        # Only the server draws; workers are spared the second that this import takes.
        from models.text.seq2seq_figures import dialogues_figure

        chosen = data.take(torch.randperm(len(data), generator=generator)[:ROWS])
        contexts = [context.split(SEPARATOR) for context in read(chosen["source"])]
        outputs = self.writer.write(model, chosen["source"])
        return {"dialogues": dialogues_figure([*zip(contexts, read(chosen["target"]), outputs, strict=True)])}

    def _unigram_loss(self, data: Examples) -> float:
        """Return the loss of the unigram model summed over the tokens of all replies, in nats."""
        parts = torch.arange(len(data)).split(AT_ONCE)
        return sum(
            self._unigram.loss(self.batch(data.at(rows), torch.Generator())["labels"]) for rows in parts
        )

    @cached_property
    def _unigram(self) -> Unigram:
        """How often each token occurs in the training replies."""
        unigram = Unigram(self.writer.vocabulary.size)
        for rows in torch.arange(len(self.dataset.train)).split(AT_ONCE):
            unigram.learn(self.batch(self.dataset.train.at(rows), torch.Generator())["labels"])
        return unigram
