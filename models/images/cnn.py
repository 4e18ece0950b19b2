"""Image classification: by the small convolutional network of the field's tutorials, or one by name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import require
from models.core.confusion_matrix import confusion_matrix
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.explain.explanation import Explanation
from models.images.explained import METHODS, explain_images, methods_of
from models.images.networks import STRIDE, find_network
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Small enough that the activations of a batch stay in the cache of a CPU.
EVALUATION_BATCH = 100


class ImageClassification(Task):
    """Classify images, grey or RGB.

    Options: `network`, a classifier of torchvision such as "resnet18"; "" is a small one for images of 8x8 to
    32x32 pixels; `norm`, "none", "group" or "batch", of a network by name "group" or "batch"; "" is what the
    network has.
    """

    kind = "images"
    batches_anywhere = True
    batch_by_row = True
    metric = "accuracy"
    metrics = ("loss",)
    explained_by = METHODS

    def __init__(self, dataset: Dataset, norm: str = "", network: str = "") -> None:
        super().__init__(dataset)
        if not dataset.classes:
            raise UserError(f"task cnn needs labels, and dataset {dataset.name!r} has none")
        _, channels, height, width = dataset.train.shape("image")
        sides = f"{STRIDE} pixels or more for cnn"
        require(min(height, width) >= STRIDE, "sides of images", sides, f"{height}x{width}")
        self.network = find_network(network, (channels, height, width), norm)
        self.unstackable, self.stackable = self.network.unstackable, not self.network.unstackable
        self.explained_by = methods_of(self.network.map)
        self.max_value = float(dataset.info["max_value"])

    def build(self) -> nn.Module:
        """Return the network for the dataset's image size and classes."""
        return self.network.classifier(len(self.dataset.classes))

    def trains_on_one(self, model: nn.Module) -> bool:
        """Return whether the network can train on a batch of one example."""
        return self.network.trains_on_one and super().trains_on_one(model)

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

    def explain(
        self, model: nn.Module, data: Examples, method: str, asked: Sequence[int] | None = None
    ) -> Explanation:
        """Tell which pixels speak for a class, or where in the map of features."""
        image, classes = self._pixels(data["image"]), self.dataset.classes
        return explain_images(model, image, data["label"], classes, method, asked, self.network.map)

    def _logits(self, model: nn.Module, data: Examples) -> Tensor:
        """(N, C, H, W) -> (N, num_classes), on the CPU."""
        device = next(model.parameters()).device
        chunks = data["image"].split(EVALUATION_BATCH)
        return torch.cat([model(self._pixels(chunk).to(device)).float().cpu() for chunk in chunks])

    def _pixels(self, image: Tensor) -> Tensor:
        return image.float() / self.max_value


def _cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["image"]), batch["label"])
