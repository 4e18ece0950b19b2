"""Convolutions that halve an image step by step to a vector, and transposed ones that lead back.

The discriminator and generator of DCGAN (Radford et al. 2016, arXiv:1511.06434) are such a pair, and so
are the encoder and decoder of a convolutional autoencoder. They differ from the paper in two places:
GroupNorm stands for BatchNorm, whose running statistics do not average well over clients with different
data (Hsieh et al. 2020, arXiv:1910.00189), and a linear layer joins the vector, so that images need not be
square, nor a power of two.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import require
from models.core.errors import UserError, unknown
from models.data.dataset import Dataset
from models.images.densenet import GROUPS, DownDense

SMALLEST = 8
"""Pixels below which an image is too small to be halved twice."""


def image_shape(dataset: Dataset) -> tuple[int, int, int]:
    """Return (channels, height, width) of the dataset's images; raise UserError for ones below 8x8."""
    channels, height, width = dataset.train.shape("image")[1:]
    if min(height, width) < SMALLEST:
        raise UserError(f"images must be {SMALLEST}x{SMALLEST} or larger, got {height}x{width}")
    return channels, height, width


def check_pyramid(latent: int, width: int, blocks: str) -> None:
    """Raise UserError for options that no pyramid can be built with."""
    require(latent >= 1, "latent", ">= 1", latent)
    require(width >= 1 and width % GROUPS == 0, "width", f"a positive multiple of {GROUPS}", width)
    if blocks not in BLOCKS:
        raise unknown("blocks", blocks, BLOCKS)


class Down(nn.Module):
    """Halve an image until four to eight pixels are left (two for 8x8), twice the channels each time."""

    def __init__(self, shape: tuple[int, int, int], num_outputs: int, width: int, blocks: str) -> None:
        super().__init__()
        channels, height, breadth = shape
        halvings = num_halvings(height, breadth)
        block = DOWN[blocks]
        widths = [width << level for level in range(halvings)]
        self.from_image = nn.Sequential(nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
        self.blocks = nn.Sequential(*map(block, widths, widths[1:]))
        self.to_vector = nn.Linear(widths[-1] * (height >> halvings) * (breadth >> halvings), num_outputs)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_outputs)."""
        vector: Tensor = self.to_vector(self.blocks(self.from_image(image)).flatten(1))
        return vector


class Up(nn.Module):
    """Double a few pixels until they are an image, half the channels each time: `Down` mirrored."""

    def __init__(self, shape: tuple[int, int, int], num_inputs: int, width: int, blocks: str) -> None:
        super().__init__()
        channels, self.height, self.breadth = shape
        halvings = num_halvings(self.height, self.breadth)
        _, block = BLOCKS[blocks]
        widths = [width << level for level in reversed(range(halvings))]
        # Rounded up: what stands over the edge is cut off.
        self.smallest = (widths[0], -(-self.height >> halvings), -(-self.breadth >> halvings))
        self.from_vector = nn.Linear(num_inputs, self.smallest[0] * self.smallest[1] * self.smallest[2])
        self.blocks = nn.Sequential(
            nn.GroupNorm(GROUPS, widths[0]), nn.ReLU(), *map(block, widths, widths[1:])
        )
        self.to_image = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)

    def forward(self, vector: Tensor) -> Tensor:
        """(B, num_inputs) -> (B, C, H, W), unbounded."""
        image: Tensor = self.to_image(self.blocks(self.from_vector(vector).unflatten(1, self.smallest)))
        return image[:, :, : self.height, : self.breadth]


def num_halvings(height: int, width: int) -> int:
    """Return 2 for sides of 8 to 31 pixels, 3 from 32, and one more with every doubling."""
    return max(2, (min(height, width) // 4).bit_length() - 1)


def _down_plain(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.GroupNorm(GROUPS, outputs), nn.LeakyReLU(0.2)
    )


def _up_plain(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.GroupNorm(GROUPS, outputs), nn.ReLU()
    )


class _DownResidual(nn.Module):
    """Pre-activation block with an average-pooled end (Gulrajani et al. 2017, arXiv:1704.00028, app. F)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.residual = nn.Sequential(
            nn.GroupNorm(GROUPS, inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, inputs, 3, padding=1),
            nn.GroupNorm(GROUPS, inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H // 2, W // 2)."""
        return F.avg_pool2d(self.shortcut(x) + self.residual(x), 2)


class _UpResidual(nn.Module):
    """The same block with a doubling start."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.before = nn.Sequential(nn.GroupNorm(GROUPS, inputs), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(GROUPS, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, 2 H, 2 W)."""
        residual: Tensor = self.residual(F.interpolate(self.before(x), scale_factor=2.0))
        # A 1x1 convolution of doubled pixels is the doubled 1x1 convolution, at a quarter of the cost.
        return residual + F.interpolate(self.shortcut(x), scale_factor=2.0)


BLOCKS: Mapping[str, tuple[Callable[[int, int], nn.Module], Callable[[int, int], nn.Module]]] = {
    "plain": (_down_plain, _up_plain),
    "resnet": (_DownResidual, _UpResidual),
}
"""Name -> what halves, and what doubles, from one number of channels to another."""
DOWN: Mapping[str, Callable[[int, int], nn.Module]] = {
    **{name: down for name, (down, _) in BLOCKS.items()},
    "densenet": DownDense,
}
"""Name -> what halves; not each has its mirror image."""
