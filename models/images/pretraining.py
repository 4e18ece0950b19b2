"""What tasks share that train the features of an image classifier without labels."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.errors import UserError
from models.core.probe import fit_scores, probe, some_rows
from models.data.dataset import Dataset, Examples
from models.explain.explanation import Explanation
from models.images.cnn import EVALUATION_BATCH
from models.images.explained import METHODS, explain_images, methods_of
from models.images.networks import find_network
from models.images.pyramid import image_shape
from models.task import Task


class Probed(nn.Module):
    """Features, and a linear classifier of their means over the image."""

    def __init__(self, features: nn.Module, channels: int, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.features, self.channels = features, channels
        self.weight, self.bias = weight, bias

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> scores (B, num_classes)."""
        return F.linear(pooled(self.features(image), self.channels), self.weight, self.bias)


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
    explained_by = METHODS

    def __init__(self, dataset: Dataset, norm: str, network: str) -> None:
        super().__init__(dataset)
        if not dataset.classes:
            raise UserError(f"the probe of this task needs labels, and dataset {dataset.name!r} has none")
        self.shape = image_shape(dataset)
        self.network = find_network(network, self.shape, norm)
        self.max_value = float(dataset.info["max_value"])
        self.explained_by = methods_of(self.network.map)

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

    def explain(
        self, model: nn.Module, data: Examples, method: str, asked: Sequence[int] | None = None
    ) -> Explanation:
        """Tell what of an image speaks for a class to a linear classifier of the features.

        That one learns from some of the training examples, the same for every model.
        """
        train, classes = self.dataset.train, self.dataset.classes
        rows = some_rows(len(train))
        with torch.no_grad():
            found = self.embed(model, train.at(rows)["image"])
        weight, bias = fit_scores(found, train["label"][rows], len(classes))
        channels, *_ = self.network.map
        probed = Probed(cast(nn.Module, model.features), channels, weight.float(), bias.float()).eval()
        image = self.pixels(data["image"])
        return explain_images(probed, image, data["label"], classes, method, asked, self.network.map)

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
