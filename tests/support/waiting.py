"""A task whose clients wait for a file before they train; given to runs as "waiting:WaitingCnn"."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.core.seeds import generator_for
from models.data.dataset import Dataset, Examples
from models.images.cnn import ImageClassification
from models.task import Batch


class WaitingCnn(ImageClassification):
    """Trains one batch; of `places` (round, client) each waits for the file ROUND-CLIENT in the home folder.

    No server may tell a real node a path.
    """

    def __init__(self, dataset: Dataset, places: Sequence[Sequence[int]], **options: Any) -> None:
        super().__init__(dataset, **options)
        self.files = {
            generator_for(42, "train", *place).initial_seed(): "-".join(map(str, place)) for place in places
        }

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        file = self.files.get(generator.initial_seed())
        while file and not (Path.home() / file).exists():
            time.sleep(0.05)
        yield next(super().batches(model, data, generator, batch_size))
