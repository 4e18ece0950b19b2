"""The data and the training, which know nothing of Flower; the networks are those of the benchmark."""

from functools import cache

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from models.core.config import TaskConfig, read
from models.data import datasets
from models.data.dataset import Dataset
from simulations.bench.workloads import WORKLOADS, inputs_and_targets


@cache  # a worker serves many clients, and loads the data once
def load_dataset(workload: str) -> Dataset:
    """Return the data of the workload."""
    return datasets.load_dataset(read(TaskConfig, WORKLOADS[workload].run_config()))


def load_data(workload: str, partition_id: int, batch_size: int) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Return the loader of one client, who holds a random sample of the examples."""
    dataset = load_dataset(workload)
    rng = np.random.default_rng(partition_id)
    rows = rng.choice(len(dataset.train), WORKLOADS[workload].examples, replace=False)
    own = TensorDataset(*inputs_and_targets(dataset, rows))
    return DataLoader(own, batch_size=batch_size, shuffle=True)


def train(
    net: nn.Module,
    loader: DataLoader[tuple[torch.Tensor, ...]],
    epochs: int,
    lr: float,
    device: torch.device,
) -> float:
    """Train in place; return the mean loss of a batch."""
    net.to(device)
    criterion = nn.CrossEntropyLoss().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            optimizer.zero_grad()
            # (B, C) or, of a text, (B, T, C): every one of the T is classified.
            loss = criterion(net(inputs).flatten(0, -2), targets.flatten())
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (epochs * len(loader))
