"""Image pre-training by predicting hidden patches (SimMIM: Xie et al. 2022, arXiv:2111.09886).

As with masked autoencoders (He et al. 2022, arXiv:2111.06377) the loss is that of the hidden pixels alone,
and a fixed part of each image is hidden. Those leave hidden patches out of the encoder's sequence; a
convolution has none, so that here, as in SimMIM, a learned value stands in their place.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.core.config import require
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.images.cnn import EVALUATION_BATCH
from models.images.grid import image_grid
from models.images.networks import STRIDE, Network
from models.images.pretraining import ImagePretraining
from models.images.pyramid import SMALLEST
from models.task import Batch, Metrics, Objective, OptimizerChoice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12
"""Held-out images that are drawn."""


class MaskedAutoencoder(nn.Module):
    """A classifier's features of an image with holes, and two convolutions that draw the image from them."""

    def __init__(self, channels: int, network: Network, scale: int) -> None:
        """Each step of the network's map stands for `scale` pixels."""
        super().__init__()
        self.features = network.features()
        self.mask_value = nn.Parameter(torch.full((channels, 1, 1), 0.5))
        self.decoder = nn.Sequential(
            nn.Unflatten(1, network.map),
            nn.Conv2d(network.map[0], 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, channels * scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
        )

    def forward(self, image: Tensor, hidden: Tensor) -> Tensor:
        """(B, C, H, W), hidden pixels (B, 1, H, W) -> all pixels (B, C, H, W), unbounded."""
        drawn: Tensor = self.decoder(self.features(torch.where(hidden, self.mask_value, image)).flatten(1))
        return drawn


class MaskedPixels(ImagePretraining):
    """Predict the hidden patches of images whose sides are multiples of 4.

    Options: `network` and `norm`, as for cnn; `patch`, pixels of a patch's side; `mask_ratio`, the part of an
    image's patches that is hidden.

    Metrics: `loss`, the mean squared error of hidden pixels, whose values are in [0, 1]; `probe-accuracy`.
    """

    batches_anywhere = True

    def __init__(
        self,
        dataset: Dataset,
        norm: str = "",
        patch: int = 4,
        mask_ratio: float = 0.5,
        network: str = "",
    ) -> None:
        super().__init__(dataset, norm, network)
        _, height, width = self.shape
        self.scale = _scale(network, self.network.map, height, width)
        fits = patch >= 1 and height % patch == 0 and width % patch == 0
        require(fits, "patch", f"a divisor of the sides of images, {height}x{width}", patch)
        self.patch, self.grid = patch, (height // patch, width // patch)
        patches = self.grid[0] * self.grid[1]
        self.num_hidden = round(mask_ratio * patches)
        allowed = f"a part of {patches} patches that hides one at least and leaves one"
        require(0 < self.num_hidden < patches, "mask_ratio", allowed, mask_ratio)

    def build(self) -> nn.Module:
        """Return encoder and decoder for the dataset's image size."""
        return MaskedAutoencoder(self.shape[0], self.network, self.scale)

    @property
    def objectives(self) -> Sequence[Objective]:
        """The error of the hidden pixels, by Adam."""
        return [Objective("loss", _loss, optimizer=OptimizerChoice("adam", 3e-3))]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return the images and which of their pixels are hidden."""
        return {"image": self.pixels(examples["image"]), "hidden": self.hide(len(examples), generator)}

    def hide(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw which pixels of each image are hidden (N, 1, H, W): patches, of each image equally many."""
        rows, columns = self.grid
        order = torch.rand(num_images, rows * columns, generator=generator).argsort(1)
        hidden = (order < self.num_hidden).view(-1, 1, rows, columns)
        return hidden.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of errors over hidden pixels, and of the probes' right answers."""
        device = next(model.parameters()).device
        hidden = self.hide(len(data), generator)
        total = 0.0
        for rows in torch.arange(len(data)).split(EVALUATION_BATCH):
            image, holes = self.pixels(data["image"][rows]).to(device), hidden[rows].to(device)
            total += float(hidden_errors(image, holes, model(image, holes)).double().sum())
        return {
            "probe-accuracy": self.probe(model, data),
            "loss": (total, self.shape[0] * int(hidden.sum())),
        }

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw held-out images, the same with holes, and with holes filled."""
        device = next(model.parameters()).device
        image = self.pixels(data["image"][:SHOWN])
        hidden = self.hide(len(image), generator)
        filled = torch.where(hidden, model(image.to(device), hidden.to(device)).cpu().clamp(0, 1), image)
        rows = torch.cat([image, image.masked_fill(hidden, 0.5), filled])
        title = "Held-out images, with patches hidden, and as they were filled in"
        return {"masked-pixels": image_grid(rows, title, len(image))}


def _scale(name: str, features: tuple[int, int, int], height: int, width: int) -> int:
    """Return how many pixels high and wide a step of a network's map is; UserError where it is no number."""
    _, rows, columns = features
    if name and rows * columns == 1 and min(height, width) > SMALLEST:
        raise UserError(
            f"network {name!r} makes one vector of an image of {height}x{width}, and masked-pixels draws "
            "from a map: take another one, such as resnet18, or larger images"
        )
    scale = height // rows if name else STRIDE
    allowed = f"{rows} and {columns} times one number for {name}" if name else f"multiples of {STRIDE}"
    fits = (rows * scale, columns * scale) == (height, width)
    require(fits, "sides of images", f"{allowed} for masked-pixels", f"{height}x{width}")
    return scale


def hidden_errors(image: Tensor, hidden: Tensor, drawn: Tensor) -> Tensor:
    """Return the squared error of each hidden pixel and channel, 0 elsewhere: all (B, C, H, W)."""
    return (drawn.float() - image).square() * hidden


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    image, hidden = batch["image"], batch["hidden"]
    return hidden_errors(image, hidden, model(image, hidden)).sum() / (hidden.sum() * image.shape[1])
