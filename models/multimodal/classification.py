"""Classification of things by their picture and a text about them, either of which may be missing."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import require
from models.core.errors import unknown
from models.data.dataset import Dataset, Examples
from models.data.modalities import HAS, MODALITIES
from models.multimodal.fusion import FUSIONS
from models.multimodal.modality_task import ModalityTask, has_of, in_chunks, vectors_of
from models.task import Batch, Metrics, Objective, OptimizerChoice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALONE = "accuracy-"
"""Prefix of the accuracy by one modality alone."""
SHOWN = 12
"""Examples that a figure shows."""


class FusedClassifier(nn.Module):
    """Encoders, what makes one vector of theirs, and a linear layer."""

    def __init__(self, encoders: nn.ModuleDict, fusion: nn.Module, size: int, num_classes: int) -> None:
        super().__init__()
        self.encoders, self.fusion = encoders, fusion
        self.classifier = nn.Linear(size, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, num_classes)."""
        logits: Tensor = self.classifier(self.fusion(vectors_of(self, batch), has_of(self, batch)))
        return logits


class MultimodalClassification(ModalityTask):
    """Say what class a thing is of from its picture, a text about it, or both.

    Options: `fusion`, how the encoders' vectors become one: "attention", "gated" or "concat";
    `modalities`, those that are used, `["image", "text"]` or one of them; examples without any are not
    learned from;
    `hide`, how often one of the two is hidden in training from an example that has both, so that each alone
    is learned from too;
    `size`, numbers in a vector; `network` and `norm` of the encoder of pictures, as for cnn.

    Metrics: `accuracy` by all that an example has; `accuracy-image` and `accuracy-text` by that modality
    alone, of the examples that have it; `loss`.

    A client without a modality neither trains nor averages what belongs to it alone: its encoder, and its own
    layers of the fusion.
    """

    metric = "accuracy"
    metrics = (*(ALONE + name for name in MODALITIES), "loss")

    def __init__(
        self,
        dataset: Dataset,
        fusion: str = "attention",
        modalities: Sequence[str] = MODALITIES,
        hide: float = 0.3,
        size: int = 64,
        network: str = "",
        norm: str = "",
    ) -> None:
        super().__init__(dataset, modalities, size, network, norm)
        if fusion not in FUSIONS:
            raise unknown("fusion", fusion, FUSIONS)
        require(0 <= hide <= 1, "hide", "0 to 1", hide)
        self.fusion, self.hide = fusion, hide
        self.parts = {name: (f"encoders.{name}.*", f"fusion.*.{name}.*") for name in self.modalities}

    def build(self) -> nn.Module:
        """Return the network."""
        fusion = FUSIONS[self.fusion](self.modalities, self.size, self.size)
        return FusedClassifier(self.encoders(), fusion, self.size, len(self.dataset.classes))

    @property
    def objectives(self) -> Sequence[Objective]:
        """Cross-entropy of the examples that have something, by Adam."""
        return [Objective("loss", _cross_entropy, optimizer=OptimizerChoice("adam", 1e-3), count=_num_seen)]

    def trained_parts(self, data: Examples) -> Collection[str]:
        """Return the modalities that some example has."""
        return [name for name in self.modalities if data[HAS + name].any()]

    def num_examples(self, data: Examples) -> int:
        """Return how many examples have something to learn from."""
        return int(_any(self.has(data)).sum())

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return pictures, texts and labels; of some examples that have both, one is hidden."""
        has = self.has(examples)
        if len(has) == len(MODALITIES):
            hidden, which = torch.rand(2, len(examples), generator=generator).to(examples.device)
            both = torch.stack(list(has.values())).prod(0)
            for place, name in enumerate(has):
                chosen = (which < 0.5) == bool(place)
                has[name] = has[name] * (1 - both * ((hidden < self.hide) & chosen).float())
        return self.seen(examples, has)

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of the loss, and of right answers by all, and by each modality alone."""
        if not len(data):
            return {}
        logits, label = self._logits(model, data), data["label"].cpu()
        sums: Metrics = {
            "accuracy": (float((logits.argmax(1) == label).sum()), len(data)),
            "loss": (float(F.cross_entropy(logits.double(), label, reduction="sum")), len(data)),
        }
        for name, has in self.has(data).items():
            right = (self._logits(model, data, name).argmax(1) == label) & (has > 0).cpu()
            sums[ALONE + name] = (float(right.sum()), float(has.sum()))
        return sums

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw examples with what is said of them, and how often each class is found."""
        # Only the server draws; workers are spared what this import takes.
        from models.multimodal.figures import classes_figure, examples_figure

        said = {"together": self._logits(model, data).argmax(1)}
        if len(self.modalities) > 1:
            said |= {name: self._logits(model, data, name).argmax(1) for name in self.modalities}
        chosen = torch.randperm(len(data), generator=generator)[:SHOWN]
        of_chosen = {name: predicted[chosen] for name, predicted in said.items()}
        return {
            "examples": examples_figure(data.take(chosen), of_chosen, self.dataset.classes, self.max_value),
            "by-class": classes_figure(data, said, self.dataset.classes),
        }

    def _logits(self, model: nn.Module, data: Examples, alone: str = "") -> Tensor:
        """Return scores (N, num_classes), on the CPU, by all modalities or one `alone`."""
        device = next(model.parameters()).device
        found = []
        for chunk in in_chunks(data):
            has = self.has(chunk)
            if alone:
                has = {name: each * (name == alone) for name, each in has.items()}
            batch = {name: column.to(device) for name, column in self.seen(chunk, has).items()}
            found.append(model(batch).float().cpu())
        return torch.cat(found)


def _any(has: dict[str, Tensor]) -> Tensor:
    """Return which examples have any modality: (B,), 1 or 0."""
    return torch.stack(list(has.values())).amax(0)


def _num_seen(batch: Batch) -> int:
    return int(_any({name: each for name, each in batch.items() if name.startswith(HAS)}).sum())


def _cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean over the examples that have something, in nats; 0 of none."""
    seen = _any(has_of(model, batch))
    losses = F.cross_entropy(model(batch), batch["label"], reduction="none")
    return (losses * seen).sum() / seen.sum().clamp(min=1)
