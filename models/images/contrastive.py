"""Image pre-training by telling views of one image from those of others (SimCLR: Chen et al. 2020).

arXiv:2002.05709. What is contrasted are a client's own images, those of a batch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import require
from models.data.dataset import Dataset, Examples
from models.images.augmentations import random_views
from models.images.cnn import EVALUATION_BATCH
from models.images.grid import image_grid
from models.images.networks import Network
from models.images.pretraining import ImagePretraining, pooled
from models.task import Batch, Metrics, Objective, OptimizerChoice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUERIES, NEIGHBOURS, MAPPED = 10, 8, 500
"""Held-out images that are drawn beside their neighbours, how many of these, and images in the map."""


class Contrast(nn.Module):
    """A classifier's features, and a projection of their means over the image that serves the loss alone."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.channels, *_ = network.map
        self.features = network.features()
        self.projection = nn.Sequential(nn.Linear(self.channels, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, 64)."""
        projected: Tensor = self.projection(pooled(self.features(image), self.channels))
        return projected


class ContrastiveLearning(ImagePretraining):
    """Find an image's second view among the views of a batch.

    Options: `network` and `norm`, as for cnn; `temperature` of the loss; `flip`, whether a mirrored image
    shows the same, as photographs do and digits do not.

    Metrics: `loss`, NT-Xent among 100 held-out images at a time, in nats; `probe-accuracy`.
    """

    batches_anywhere = True

    def __init__(
        self,
        dataset: Dataset,
        norm: str = "",
        temperature: float = 0.2,
        flip: bool = False,
        network: str = "",
    ) -> None:
        super().__init__(dataset, norm, network)
        require(temperature > 0, "temperature", "> 0", temperature)
        require(isinstance(flip, bool), "flip", "true or false", flip)
        self.temperature, self.flip = temperature, flip

    def build(self) -> nn.Module:
        """Return encoder and projection."""
        return Contrast(self.network)

    @property
    def objectives(self) -> Sequence[Objective]:
        """NT-Xent, by Adam."""
        return [Objective("loss", self._loss, optimizer=OptimizerChoice("adam", 1e-3))]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return two views of each image."""
        return self._two_views(examples["image"], generator)

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of NT-Xent, and of the probes' right answers."""
        device = next(model.parameters()).device
        total = 0.0
        for image in data["image"].split(EVALUATION_BATCH):
            views = self._two_views(image, generator)
            here = {name: view.to(device) for name, view in views.items()}
            total += float(self._loss(model, here)) * len(image)
        return {"probe-accuracy": self.probe(model, data), "loss": (total, len(data))}

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw a map of held-out features, coloured by class, and images beside their nearest neighbours."""
        features = self.embed(model, data["image"])
        order = nearest(features)[:QUERIES, :NEIGHBOURS]
        queries = torch.arange(len(order))[:, None]
        rows = torch.cat([queries, order], 1)
        images = self.pixels(data["image"][rows.flatten()])
        return {
            "map": _map(features[:MAPPED], data["label"][:MAPPED], self.dataset.classes),
            "neighbours": image_grid(images, "Held-out images and their nearest", rows.shape[1]),
        }

    def _two_views(self, image: Tensor, generator: torch.Generator) -> Batch:
        pixels = self.pixels(image)
        return {name: random_views(pixels, generator, self.flip) for name in ("first", "second")}

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return nt_xent(model(batch["first"]), model(batch["second"]), self.temperature)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross-entropy of pairs (B, D) (ibid., eq. 1), in nats.

    Each of the 2 B views is asked which of the other 2 B - 1 is of its image, by cosine similarity. It is
    computed in float32 at least: bfloat16 has 8 bits, and a small temperature magnifies their rounding.
    """
    with torch.autocast(first.device.type, enabled=False):
        views = F.normalize(torch.cat([first, second]).float(), dim=1)
        similarity = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
        partner = torch.arange(len(views), device=views.device).roll(len(first))
        return F.cross_entropy(similarity, partner)


def nearest(features: Tensor) -> Tensor:
    """Return every row's other rows, the most similar by cosine first: (N, D) -> (N, N - 1)."""
    unit = F.normalize(features, dim=1)
    return (unit @ unit.T).fill_diagonal_(-torch.inf).argsort(1, descending=True)[:, :-1]


def _map(features: Tensor, labels: Tensor, classes: Sequence[str]) -> "Figure":
    """Lay features (N, D) out in the plane by t-SNE (van der Maaten & Hinton 2008)."""
    # Only the server draws; workers are spared the seconds that these imports take.
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    places = TSNE(perplexity=perplexity, random_state=0).fit_transform(features.numpy())
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(classes):
        chosen = places[(labels == number).numpy()]
        axes.scatter(chosen[:, 0], chosen[:, 1], s=14, label=name)
    axes.set(xticks=[], yticks=[], title="Held-out images by their features (t-SNE)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure
