"""The network, the data and the training, which know nothing of Flower."""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

EXAMPLES_PER_CLIENT = 32


class Net(nn.Module):
    """A convolution and a linear layer, for (B, 1, 8, 8) pictures of 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.linear = nn.Linear(16 * 8 * 8, 10)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 8, 8) -> logits (B, 10)."""
        logits: Tensor = self.linear(torch.relu(self.conv(image)).flatten(1))
        return logits


@cache  # a worker serves many clients, and loads the data once
def load_dataset() -> TensorDataset:
    """Return scikit-learn's digits: images (N, 1, 8, 8) in [0, 1], labels (N,)."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return TensorDataset(pixels, torch.tensor(labels, dtype=torch.int64))


def load_data(partition_id: int, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    """Return the loader of one client, who holds a random sample of the examples."""
    dataset = load_dataset()
    rows = np.random.default_rng(partition_id).choice(len(dataset), EXAMPLES_PER_CLIENT, replace=False)
    own = TensorDataset(*dataset[torch.from_numpy(rows)])
    return DataLoader(own, batch_size=batch_size, shuffle=True)


def train(
    net: nn.Module, loader: DataLoader[tuple[Tensor, ...]], epochs: int, lr: float, device: torch.device
) -> float:
    """Train in place; return the mean loss of a batch."""
    net.to(device)
    net.train()
    criterion = nn.CrossEntropyLoss().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    running_loss = 0.0
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(net(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (epochs * len(loader))
