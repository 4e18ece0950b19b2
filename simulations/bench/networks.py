"""The networks of the benchmarks, which every system trains: plain torch, and nothing else."""

from torch import Tensor, nn


def small_cnn() -> nn.Module:
    """(B, 1, 8, 8) -> logits (B, 10): a convolution and a linear layer, 10,410 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 8 * 8, 10),
    )


def cifar_cnn() -> nn.Module:
    """(B, 3, 32, 32) -> logits (B, 10): two convolutions and a linear layer, 60,362 parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 10),
    )


class CharacterLSTM(nn.Module):
    """An embedding, an LSTM and a linear layer: 93,248 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 32)
        self.lstm = nn.LSTM(32, 128, batch_first=True)
        self.head = nn.Linear(128, 64)

    def forward(self, text: Tensor) -> Tensor:
        """(B, T), int64 -> logits of each next character (B, T, 64)."""
        logits: Tensor = self.head(self.lstm(self.embedding(text))[0])
        return logits


def wide(hidden: int = 3696) -> nn.Module:
    """(B, 3, 32, 32) -> logits (B, 10): two hidden layers, 25.1 million parameters unless told otherwise."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * 32 * 32, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


def num_parameters(network: nn.Module) -> int:
    """Return how many numbers are trained."""
    return sum(parameter.numel() for parameter in network.parameters())
