"""The networks that classify images, or find features in them: polyfed's small one, and others by name."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from models.core.config import require
from models.images.classifiers import NamedNetwork

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


class Network(Protocol):
    """What can be built for images of a size, as a classifier or to find features alone.

    Both have the same weights below `features`, so that the one may begin with those of the other.
    """

    @property
    def map(self) -> tuple[int, int, int]:
        """Channels, height and width of the features of an image."""

    @property
    def unstackable(self) -> str:
        """Why clients cannot train it side by side, as the end of a sentence; "" where they can."""

    @property
    def trains_on_one(self) -> bool:
        """Whether it trains on a batch of one example."""

    def features(self) -> nn.Module:
        """Return what finds features: (B, C, H, W) -> (B, c * h * w), or as a map."""

    def classifier(self, num_classes: int) -> nn.Module:
        """Return the whole network: (B, C, H, W) in [0, 1] -> logits (B, num_classes)."""


@dataclass(frozen=True)
class SmallNetwork:
    """`ConvNet`, for images of 8x8 to 32x32 pixels."""

    shape: tuple[int, int, int]
    """Channels, height and width of the images."""
    norm: str
    """"none", "group" or "batch"."""
    trains_on_one: bool = True

    @property
    def map(self) -> tuple[int, int, int]:
        """Channels, height and width of the features of an image."""
        _, height, width = self.shape
        return FEATURE_CHANNELS, height // STRIDE, width // STRIDE

    @property
    def unstackable(self) -> str:
        """Why clients cannot train it side by side."""
        return "has BatchNorm, whose running statistics a stack would lose" if self.norm == "batch" else ""

    def features(self) -> nn.Module:
        """Return the convolutions."""
        return convolutions(self.shape[0], self.norm)

    def classifier(self, num_classes: int) -> nn.Module:
        """Return the whole network."""
        return ConvNet(*self.shape, num_classes, self.norm)


def find_network(name: str, shape: tuple[int, int, int], norm: str) -> Network:
    """Return the network of this name for images of (channels, height, width); "" is the small one.

    Raises UserError for an unknown name or norm, and where the network does not fit.
    """
    if name:
        return NamedNetwork(name, shape, norm)
    require(norm in ("", *NORMS), "norm", f"one of {', '.join(NORMS)}", norm)
    return SmallNetwork(shape, norm or "none")
