"""Tasks that do to a worker of Ray's what a test wants; given to runs as "ray_tasks:NAME"."""

import ctypes
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from faulty import seed_of
from torch import nn

from models.data.dataset import Dataset, Examples
from models.images.cnn import ImageClassification
from models.task import Batch


class _AtAPlace(ImageClassification):
    """Does something when a client trains in a round."""

    def __init__(self, dataset: Dataset, place: Sequence[int] = (), **options: Any) -> None:
        super().__init__(dataset, **options)
        self.place = seed_of(place)

    def act(self) -> None:
        """Do it."""

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        if self.place in (None, generator.initial_seed()):
            self.act()
        yield from super().batches(model, data, generator, batch_size)


class DiesOnce(_AtAPlace):
    """Kills its process where there is no file `once`, and writes it."""

    def __init__(self, dataset: Dataset, once: str = "", **options: Any) -> None:
        super().__init__(dataset, **options)
        self.once = Path(once)

    def act(self) -> None:
        if not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class HangsOnce(DiesOnce):
    """Hangs where there is no file `once`, and writes it."""

    def act(self) -> None:
        if not self.once.exists():
            self.once.touch()
            hang()


class Hangs(_AtAPlace):
    """Hangs."""

    def act(self) -> None:
        hang()


def hang() -> None:
    """Hang as a native library may: no signal is heard, and no thread of Python's can go on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).sleep(600)


class Talks(_AtAPlace):
    """Prints a line."""

    def act(self) -> None:
        print("here I am", flush=True)
