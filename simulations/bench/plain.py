"""The same federation as a loop in one process: what the arithmetic alone costs."""

import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import TaskConfig, read
from models.core.device import pinned
from models.data.datasets import load_dataset
from models.data.partition import make_partition
from models.task import State
from simulations.bench.clock import note_start
from simulations.bench.workload import CLIENTS_PER_ROUND, NUM_CLIENTS, RUN_CONFIG, network

Rows = tuple[Tensor, Tensor]
"""Pictures (N, 1, 8, 8) in [0, 1] and labels (N,)."""


def train_plainly(clock: Path, num_rounds: int) -> State:
    """Train and average the workload's clients round by round; return the final weights."""
    config = read(TaskConfig, RUN_CONFIG)
    dataset = load_dataset(config)
    deal = make_partition(dataset, config)
    images, labels = dataset.train["image"].float() / 16, dataset.train["label"]
    clients = [(images[deal[client]], labels[deal[client]]) for client in range(NUM_CLIENTS)]
    model = network()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pinned(config.threads):
        for _ in range(num_rounds):
            note_start(clock)
            cohort = [clients[client] for client in random.sample(range(NUM_CLIENTS), CLIENTS_PER_ROUND)]
            weights = _round(model, weights, cohort, config.batch_size)
    return weights


def _round(model: nn.Module, weights: State, cohort: list[Rows], batch_size: int) -> State:
    """Train every client of the cohort from the same weights; return the mean, weighted by examples."""
    totals = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    for images, labels in cohort:
        model.load_state_dict(weights)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for rows in torch.randperm(len(labels)).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        for name, tensor in model.state_dict().items():
            totals[name] += tensor * len(labels)
    num_examples = sum(len(labels) for _, labels in cohort)
    return {name: total / num_examples for name, total in totals.items()}
