"""Tasks one of whose clients is slow, or hangs; given to runs as "slow:SlowCnn"."""

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


class SlowCnn(ImageClassification):
    """Takes `seconds` before each of `pauses` batches, from the `first` on, when a client trains in a round.

    With a file `once` it does so the first time alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        slow_at: Sequence[int],
        seconds: float,
        pauses: int = 1,
        stream: str = "train",
        once: str = "",
        first: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(dataset, **options)
        self.slow_at = generator_for(42, stream, *slow_at).initial_seed()
        self.seconds, self.pauses, self.once = seconds, pauses, Path(once) if once else None
        self.first = first

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        slow = generator.initial_seed() == self.slow_at
        if slow and self.once is not None:
            slow = not self.once.exists()
            self.once.touch()
        for number, batch in enumerate(super().batches(model, data, generator, batch_size)):
            if slow and self.first <= number < self.first + self.pauses:
                time.sleep(self.seconds)
            yield batch
