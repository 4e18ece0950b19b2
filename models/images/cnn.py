"""Image classification with the small convolutional network of the field's tutorials."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import require
from models.core.confusion_matrix import confusion_matrix
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Small enough that the activations of a batch stay in the cache of a CPU.
EVALUATION_BATCH = 100
NORMS = ("none", "group", "batch")
FEATURE_CHANNELS, STRIDE = 64, 4
"""What `convolutions` make of an image: channels, and pixels a step to the next feature."""


def convolutions(channels: int, norm: str) -> nn.Sequential:
    """Two 3x3 convolutions, each pooled by two: (B, C, H, W) -> (B, 64 * H // 4 * W // 4).

    GroupNorm (Wu & He 2018, arXiv:1803.08494) is the norm to average: BatchNorm (Ioffe & Szegedy 2015,
    arXiv:1502.03167) has running statistics, which do not average well over clients with different data
    (Hsieh et al. 2020, arXiv:1910.00189). It is for clients that keep it to themselves, as in FedBN.
    """

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        norms: list[nn.Module] = []
        if norm != "none":
            norms = [nn.GroupNorm(8, outputs) if norm == "group" else nn.BatchNorm2d(outputs)]
        return [nn.Conv2d(inputs, outputs, 3, padding=1), *norms, nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(channels, 32), *block(32, FEATURE_CHANNELS), nn.Flatten())


class ConvNet(nn.Module):
    """The convolutions, and two linear layers."""

    def __init__(self, channels: int, height: int, width: int, num_classes: int, norm: str) -> None:
        super().__init__()
        self.features = convolutions(channels, norm)
        num_features = FEATURE_CHANNELS * (height // STRIDE) * (width // STRIDE)
        self.classifier = nn.Sequential(nn.Linear(num_features, 128), nn.ReLU(), nn.Linear(128, num_classes))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, num_classes)."""
        logits: Tensor = self.classifier(self.features(image))
        return logits


class ImageClassification(Task):
    """Classify images of 8x8 to 32x32 pixels, grey or RGB.

    Options: `norm`, "none", "group" or "batch".
    """

    kind = "images"
    batches_anywhere = True
    batch_by_row = True
    metric = "accuracy"
    metrics = ("loss",)

    def __init__(self, dataset: Dataset, norm: str = "none") -> None:
        super().__init__(dataset)
        if not dataset.classes:
            raise UserError(f"task cnn needs labels, and dataset {dataset.name!r} has none")
        require(norm in NORMS, "norm", f"one of {', '.join(NORMS)}", norm)
        height, width = dataset.train["image"].shape[-2:]
        sides = f"{STRIDE} pixels or more for cnn"
        require(min(height, width) >= STRIDE, "sides of images", sides, f"{height}x{width}")
        self.norm = norm
        self.stackable = norm != "batch"  # a stack would lose running statistics
        self.max_value = float(dataset.info["max_value"])

    def build(self) -> nn.Module:
        """Return the network for the dataset's image size and classes."""
        _, channels, height, width = self.dataset.train["image"].shape
        return ConvNet(channels, height, width, len(self.dataset.classes), self.norm)

    @property
    def objectives(self) -> Sequence[Objective]:
        """Cross-entropy, by SGD with momentum."""
        return [Objective("loss", _cross_entropy, optimizer=OptimizerChoice("sgd", 0.05, {"momentum": 0.9}))]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return the pixels and the labels."""
        return {"image": self._pixels(examples["image"]), "label": examples["label"]}

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of loss and of right answers."""
        logits, label = self._logits(model, data), data["label"]
        return {
            "accuracy": (float((logits.argmax(1) == label).sum()), len(data)),
            "loss": (float(F.cross_entropy(logits.double(), label, reduction="sum")), len(data)),
        }

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw the confusion matrix of the held-out examples."""
        predicted = self._logits(model, data).argmax(1)
        return {"confusion-matrix": confusion_matrix(data["label"], predicted, self.dataset.classes)}

    def _logits(self, model: nn.Module, data: Examples) -> Tensor:
        """(N, C, H, W) -> (N, num_classes), on the CPU."""
        device = next(model.parameters()).device
        chunks = data["image"].split(EVALUATION_BATCH)
        return torch.cat([model(self._pixels(chunk).to(device)).float().cpu() for chunk in chunks])

    def _pixels(self, image: Tensor) -> Tensor:
        return image.float() / self.max_value


def _cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["image"]), batch["label"])
