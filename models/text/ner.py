"""Named-entity recognition: a transformer that tags the words of a sentence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import require
from models.data.dataset import Dataset, Examples
from models.data.tag_schemes import OUTSIDE
from models.data.tagged_sentences import read
from models.task import Batch, Metrics, Objective, Task
from models.text.adapters import add_lora
from models.text.backbone import SCRATCH, load_backbone
from models.text.entities import entity_metrics
from models.text.tokens import EVALUATION_BATCH, NOT_ASKED, logits_of, objective

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MODEL = "AutoModelForTokenClassification"


class EntityRecognition(Task):
    """Tag the words of a sentence with the entities that they belong to.

    Options: `backbone`, as `load_backbone` takes it; `lora`, the rank of adapters (Hu et al.
    2021, arXiv:2106.09685) that are trained and sent with the head instead of the whole, 0 for none;
    `warmup_steps` of each round; `strict`, whether an entity must begin with a B- tag.
    """

    kind = "tagged-sentences"
    metric = "f1"
    metrics = ("precision", "recall", "f1-*", "precision-*", "recall-*", "loss")

    def __init__(
        self,
        dataset: Dataset,
        backbone: str = SCRATCH,
        lora: int = 0,
        warmup_steps: int = 10,
        strict: bool = False,
    ) -> None:
        super().__init__(dataset)
        require(lora >= 0, "lora", ">= 0", lora)
        require(warmup_steps >= 0, "warmup_steps", ">= 0", warmup_steps)
        self.lora, self.warmup_steps, self.strict = lora, warmup_steps, strict
        self.words: tuple[str, ...] = dataset.info["words"]
        self.tags: tuple[str, ...] = dataset.info["tags"]
        self.types = [tag[2:] for tag in self.tags if tag.startswith("B-")]
        self.backbone = load_backbone(
            backbone,
            (" ".join(sentence) for sentence in self._sentences(dataset.train)),
            id2label=dict(enumerate(self.tags)),
            label2id={tag: number for number, tag in enumerate(self.tags)},
        )
        self.agreed = (*self.tags, self.backbone.vocabulary_sha256)

    def build(self) -> nn.Module:
        """Return the network, with adapters where they are asked for."""
        network = self.backbone.build(_MODEL)
        if self.lora:
            add_lora(network, self.lora)
        return network

    @property
    def objectives(self) -> Sequence[Objective]:
        """Cross-entropy by AdamW, with the settings of BERT (Devlin et al. 2019, arXiv:1810.04805, A.3)."""
        # Fused, a step of MiniLM's 22 million weights takes 30 ms instead of 155 on a CPU.
        return [objective(self.backbone, self.warmup_steps, fused=True)]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return the tokens and their tags, as long as the longest sentence."""
        return self.encode(examples)[0]

    def encode(self, data: Examples) -> tuple[Batch, Tensor]:
        """Return the tokens of all examples, as long as the longest, and which word each token begins.

        The batch holds `input_ids`, `attention_mask` and `labels`, the words' numbers are -1 for all other
        tokens: all (B, L). Tokens beyond the network's length are dropped.
        """
        batch, first = self.backbone.encode(self._sentences(data))
        labels = data["tag"].gather(1, first.clamp(min=0)).where(first >= 0, NOT_ASKED)
        return {**batch, "labels": labels}, first

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of loss over words, and of precision, recall and F1 over entities."""
        loss, predicted = self._predict(model, data)
        pairs = zip(self._tags(data["tag"], data), self._tags(predicted, data), strict=True)
        return {
            **entity_metrics(pairs, self.types, self.strict),
            "loss": (loss, int(data["length"].sum())),
        }

    def ratios(self, metrics: Metrics) -> dict[str, float]:
        """Return the ratios; a metric is 0 where there was nothing to find, as with seqeval."""
        return {name: total / weight if weight else 0.0 for name, (total, weight) in metrics.items()}

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw the classification report of the held-out examples, and a few of their sentences with tags."""
        # Only the server draws; workers are spared the second that these imports take.
        from models.text.ner_figures import report_figure, sentences_figure

        _, predicted = self._predict(model, data)
        true, given = self._tags(data["tag"], data), self._tags(predicted, data)
        metrics = entity_metrics(zip(true, given, strict=True), self.types, self.strict)
        shown = torch.randperm(len(data), generator=generator)[:8].tolist()
        words = self._sentences(data)
        return {
            "classification-report": report_figure(metrics, self.types),
            "sentences": sentences_figure([(words[row], true[row], given[row]) for row in shown], self.types),
        }

    def _predict(self, model: nn.Module, data: Examples) -> tuple[float, Tensor]:
        """Return the loss summed over words, and the tag (N, T) of each; O for words without a token."""
        device = next(model.parameters()).device
        total, predicted = 0.0, torch.full_like(data["tag"], self.tags.index(OUTSIDE))
        for rows in torch.arange(len(data)).split(EVALUATION_BATCH):
            batch, first = self.encode(data.take(rows))
            inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
            logits = logits_of(model, inputs).double().cpu()
            total += float(F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum"))
            row, place = (first >= 0).nonzero(as_tuple=True)
            predicted[rows[row], first[row, place]] = logits[row, place].argmax(1)
        return total, predicted

    def _sentences(self, data: Examples) -> list[list[str]]:
        return read(data["word"], data["length"], self.words)

    def _tags(self, tags: Tensor, data: Examples) -> list[list[str]]:
        return read(tags, data["length"], self.tags)
