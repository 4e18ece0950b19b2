"""What makes a vector of a picture, and one of a text."""

from torch import Tensor, nn

from models.images.networks import Network

BYTES = 256
TEXT_CHANNELS, WINDOW = 64, 5


class ImageEncoder(nn.Module):
    """The features of an image classifier, and a linear layer."""

    def __init__(self, network: Network, size: int) -> None:
        super().__init__()
        channels, height, width = network.map
        self.features = network.features()
        self.out = nn.Linear(channels * height * width, size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, size)."""
        found: Tensor = self.out(self.features(image).flatten(1)).relu()
        return found


class TextEncoder(nn.Module):
    """Two convolutions over the bytes of a text, whose largest values count (Kim 2014, arXiv:1408.5882).

    Bytes of UTF-8 need no vocabulary on which clients would first have to agree, and know every script.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, TEXT_CHANNELS // 2)
        self.near = nn.Conv1d(TEXT_CHANNELS // 2, TEXT_CHANNELS, WINDOW, padding=WINDOW // 2)
        self.far = nn.Conv1d(TEXT_CHANNELS, 2 * TEXT_CHANNELS, WINDOW, padding=WINDOW // 2)
        self.out = nn.Linear(2 * TEXT_CHANNELS, size)

    def forward(self, text: Tensor) -> Tensor:
        """(B, L) bytes, 0 behind the last -> (B, size)."""
        inside = (text > 0)[:, None].float()  # (B, 1, L)
        embedded = self.embedding(text).transpose(1, 2) * inside  # (B, E, L)
        seen = self.far(self.near(embedded).relu() * inside).relu() * inside
        found: Tensor = self.out(seen.amax(2)).relu()
        return found
