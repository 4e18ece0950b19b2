"""Pictures that nobody took, of the size of CIFAR's: a GPU's time does not depend on what they show."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from models.core.config import TaskConfig
from models.data.dataset import Dataset, Examples
from models.data.source import Source
from models.images.cnn import ImageClassification
from models.task import Batch

NUM_TRAIN, NUM_TEST, NUM_CLASSES = 20_000, 500, 10


def load_photos(config: TaskConfig, num_train: int = NUM_TRAIN) -> Dataset:
    """Return random pictures (3, 32, 32) of 10 classes."""
    drawn = np.random.default_rng(0)

    def examples(count: int) -> Examples:
        image = torch.from_numpy(drawn.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
        return Examples({"image": image, "label": torch.from_numpy(drawn.integers(0, NUM_CLASSES, count))})

    return Dataset(
        name="photos",
        kind="images",
        train=examples(num_train),
        test=examples(NUM_TEST),
        label="label",
        classes=tuple(map(str, range(NUM_CLASSES))),
        info={"max_value": 255.0},
    )


PHOTOS = Source("images", load_photos, packaged=True)
"""For `dataset = "simulations.bench.gpu_data:PHOTOS"`."""


class Waiting(ImageClassification):
    """The same task, whose batches are copied from ordinary memory, each waited for."""

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        """Yield the batches on the model's device."""
        device = next(model.parameters()).device
        for batch in super().batches(model, data, generator, batch_size):
            yield {name: column.to(device) for name, column in batch.items()}
