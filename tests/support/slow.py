"""Tasks one of whose clients is slow, or hangs; given to runs as "slow:SlowCnn"."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from models.core.seeds import generator_for
from models.data.dataset import Dataset, Examples
from models.images.cnn import ImageClassification
from models.task import Batch


class SlowCnn(ImageClassification):
    """Takes `seconds` before each of `pauses` batches, when a client trains in a round."""

    def __init__(
        self,
        dataset: Dataset,
        slow_at: Sequence[int],
        seconds: float,
        pauses: int = 1,
        stream: str = "train",
        **options: Any,
    ) -> None:
        super().__init__(dataset, **options)
        self.slow_at = generator_for(42, stream, *slow_at).initial_seed()
        self.seconds, self.pauses = seconds, pauses

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        slow = generator.initial_seed() == self.slow_at
        for number, batch in enumerate(super().batches(model, data, generator, batch_size)):
            if slow and number < self.pauses:
                time.sleep(self.seconds)
            yield batch
