"""What tasks share that train the features of an image classifier without labels."""

from typing import cast

import torch
from torch import Tensor, nn

from models.core.errors import UserError
from models.core.probe import probe
from models.data.dataset import Dataset, Examples
from models.images.cnn import EVALUATION_BATCH
from models.images.networks import find_network
from models.images.pyramid import image_shape
from models.task import Task


class ImagePretraining(Task):
    """Learn the `features` of an image classifier (models/images/networks.py), for it to start from.

    `probe-accuracy` judges them: that of linear classifiers (models/core/probe.py) of the means over
    an image. The means, because thousands of features from all over an image classify digits well even if
    no layer was trained, by what lies where. Labels serve the probe alone.
    """

    kind = "images"
    metric = "probe-accuracy"
    pretrains = True
    metrics = ("loss",)

    def __init__(self, dataset: Dataset, norm: str, network: str) -> None:
        super().__init__(dataset)
        if not dataset.classes:
            raise UserError(f"the probe of this task needs labels, and dataset {dataset.name!r} has none")
        self.shape = image_shape(dataset)
        self.network = find_network(network, self.shape, norm)
        self.max_value = float(dataset.info["max_value"])

    def trains_on_one(self, model: nn.Module) -> bool:
        """Return whether the network can train on a batch of one example."""
        return self.network.trains_on_one and super().trains_on_one(model)

    def probe(self, model: nn.Module, data: Examples) -> tuple[float, float]:
        """Return how often probes that saw a few training examples were right about these, and were asked."""
        train = self.dataset.train
        features = self.embed(model, data["image"])
        return probe(
            lambda rows: self.embed(model, train.at(rows)["image"]), train["label"], features, data["label"]
        )

    def embed(self, model: nn.Module, image: Tensor) -> Tensor:
        """(N, C, H, W) as stored -> the mean of each feature over the image (N, c), on the CPU."""
        device = next(model.parameters()).device
        features = cast(nn.Module, model.features)
        channels, *_ = self.network.map
        chunks = [
            pooled(features(self.pixels(chunk).to(device)), channels).cpu()
            for chunk in image.split(EVALUATION_BATCH)
        ]
        return torch.cat(chunks)

    def pixels(self, image: Tensor) -> Tensor:
        """Return stored values as numbers in [0, 1]."""
        return image.float() / self.max_value


def pooled(features: Tensor, channels: int) -> Tensor:
    """Means over the image: (B, c * h * w), or as a map, -> (B, c)."""
    means: Tensor = features.flatten(1).unflatten(1, (channels, -1)).mean(2)
    return means
