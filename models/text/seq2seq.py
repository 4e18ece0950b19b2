"""Translation, or whatever makes one text of another: an encoder-decoder with attention."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from models.data.dataset import Examples
from models.data.parallel_text import KIND, read
from models.task import Metrics
from models.text.text_to_text import TextToText
from models.text.translation_scores import bleu, bleu_counts, chrf, chrf_counts
from models.text.word_for_word import learn_words, sample, translate_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE = "word-for-word-bleu"
MAPS, ROWS = 2, 12
"""Texts whose attention a figure shows, and those that its table has."""


class Translation(TextToText):
    """Write a text's translation, token by token.

    Options: those of `TextToText`.

    Metrics: `bleu` and `chrf` are those of sacrebleu on the whole corpus, from merged counts, 0 to 100;
    `word-for-word-bleu`, what a dictionary of single words reaches that is made of the training pairs, of at
    most 10,000;
    `exact-match`, the part of the texts that are the reference; `length-ratio`, words written to those of the
    references; `loss`, nats a token where the tokens before it are given.
    """

    kind = KIND
    pairs = "pairs"
    metric = "bleu"
    metrics = ("chrf", BASELINE, "exact-match", "length-ratio", "loss")

    def source(self, turns: Sequence[str]) -> str:
        """Return the last turn: each is translated by itself."""
        return turns[-1]

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the counts of BLEU and chrF over the texts, of exact matches, and the sum of losses."""
        if not len(data):
            return {}
        loss, tokens = self.loss(model, data)
        sources, references = (read(data[side]) for side in ("source", "target"))
        outputs = self.writer.write(model, data["source"])
        by_words = [translate_words(source, self._dictionary) for source in sources]
        exact = sum(one == other for one, other in zip(outputs, references, strict=True))
        return {
            **bleu_counts(outputs, references, self.bleu_tokenizer),
            **bleu_counts(by_words, references, self.bleu_tokenizer, BASELINE),
            **chrf_counts(outputs, references),
            "exact-match": (exact, len(outputs)),
            "loss": (loss, tokens),
        }

    def ratios(self, metrics: Metrics) -> dict[str, float]:
        """Return BLEU and chrF of the merged counts, and the means of all else."""
        if not metrics:
            return {}
        plain = {name: metrics[name] for name in ("exact-match", "loss")}
        return {
            "bleu": bleu(metrics),
            "chrf": chrf(metrics),
            BASELINE: bleu(metrics, BASELINE),
            **super().ratios({**plain, "length-ratio": metrics["bleu-length"]}),
        }

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw what a few held-out texts become, and where the network has looked for each token."""
        # Only the server draws; workers are spared the second that these imports take.
        from models.text.seq2seq_figures import attention_figure, translations_figure

        chosen = data.take(torch.randperm(len(data), generator=generator)[:ROWS])
        sources, references = (read(chosen[side]) for side in ("source", "target"))
        outputs = self.writer.write(model, chosen["source"])
        maps = [
            self.writer.attended(model, chosen["source"][row : row + 1])
            for row in range(min(MAPS, len(chosen)))
        ]
        rows = [*zip(sources, references, outputs, strict=True)]
        return {"translations": translations_figure(rows), "attention": attention_figure(maps)}

    @cached_property
    def _dictionary(self) -> dict[str, str]:
        """Source word -> target word, of a sample of the training pairs."""
        sides = [self.dataset.train[side] for side in ("source", "target")]
        rows = sample(*sides)
        return learn_words(*(read(side[rows]) for side in sides))
