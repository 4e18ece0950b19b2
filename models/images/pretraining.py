"""What tasks share that train the image classifier's convolutions without labels."""

from typing import cast

import torch
from torch import Tensor, nn

from models.core.config import require
from models.core.errors import UserError
from models.core.probe import probe
from models.data.dataset import Dataset, Examples
from models.images.cnn import EVALUATION_BATCH, FEATURE_CHANNELS, NORMS
from models.images.pyramid import image_shape
from models.task import Task


class ImagePretraining(Task):
    """Learn the `features` of `ConvNet` (models/images/cnn.py), for a classifier to start from.

    `probe-accuracy` judges them: that of linear classifiers (models/core/probe.py) of the means over
    an image. The means, because thousands of features from all over an image classify digits well even if
    no layer was trained, by what lies where. Labels serve the probe alone.
    """

    kind = "images"
    metric = "probe-accuracy"
    pretrains = True
    metrics = ("loss",)

    def __init__(self, dataset: Dataset, norm: str) -> None:
        super().__init__(dataset)
        if not dataset.classes:
            raise UserError(f"the probe of this task needs labels, and dataset {dataset.name!r} has none")
        require(norm in NORMS, "norm", f"one of {', '.join(NORMS)}", norm)
        self.norm = norm
        self.shape = image_shape(dataset)
        self.max_value = float(dataset.info["max_value"])

    def probe(self, model: nn.Module, data: Examples) -> tuple[float, float]:
        """Return how often probes that saw a few training examples were right about these, and were asked."""
        train = self.dataset.train
        features = self.embed(model, data["image"])
        return probe(
            lambda rows: self.embed(model, train["image"][rows]), train["label"], features, data["label"]
        )

    def embed(self, model: nn.Module, image: Tensor) -> Tensor:
        """(N, C, H, W) as stored -> the mean of each feature over the image (N, 64), on the CPU."""
        device = next(model.parameters()).device
        features = cast(nn.Module, model.features)
        chunks = [
            pooled(features(self.pixels(chunk).to(device))).cpu() for chunk in image.split(EVALUATION_BATCH)
        ]
        return torch.cat(chunks)

    def pixels(self, image: Tensor) -> Tensor:
        """Return stored values as numbers in [0, 1]."""
        return image.float() / self.max_value


def pooled(features: Tensor) -> Tensor:
    """Means over the image: (B, 64 * h * w) -> (B, 64)."""
    means: Tensor = features.unflatten(1, (FEATURE_CHANNELS, -1)).mean(2)
    return means
