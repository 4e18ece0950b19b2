"""Tasks that fail where a test wants them to; given to runs as "faulty:FaultyCnn"."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.control.dqn import QLearning
from models.core.seeds import generator_for
from models.data.dataset import Dataset, Examples
from models.images.cnn import ImageClassification
from models.images.gan import ImageGan
from models.task import Batch, Task


class Faulty(Task):
    """Raises, or kills its process, when a client trains in a round; (0, 0) stands for every client."""

    def __init__(
        self,
        dataset: Dataset,
        raise_at: Sequence[int] = (),
        kill_at: Sequence[int] = (),
        unless: str = "",
        **options: Any,
    ) -> None:
        super().__init__(dataset, **options)
        self.raise_at = seed_of(raise_at)
        self.kill_at = seed_of(kill_at)
        self.all_fail = list(raise_at) == [0, 0]
        self.unless = unless

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        here = generator.initial_seed()
        if here == self.kill_at and not Path(self.unless).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if self.all_fail or here == self.raise_at:
            raise ValueError("a bad batch")
        yield from super().batches(model, data, generator, batch_size)


class FaultyCnn(Faulty, ImageClassification):
    pass


class FaultyGan(Faulty, ImageGan):
    pass


class FaultyQLearning(Faulty, QLearning):
    pass


class DropoutCnn(ImageClassification):
    """Claims to be stackable, and draws inside the network all the same."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(), super().build())


def seed_of(place: Sequence[int]) -> int | None:
    """Return the seed of (server_round, client), by which a task can tell where it is."""
    return generator_for(42, "train", *place).initial_seed() if place else None
