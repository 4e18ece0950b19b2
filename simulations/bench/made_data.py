"""Data made from a seed, so that a benchmark downloads nothing: coloured pictures and lines of characters."""

import numpy as np
import torch

from models.core.config import TaskConfig
from models.data.dataset import Dataset, Examples
from models.data.source import Source

SEED = 0
NUM_CLASSES, CHANNELS, SIDE = 10, 3, 32
VOCABULARY, LENGTH = 64, 64
"""Characters, of which 0 stands before a line and in none; and characters of a line that are predicted."""
NUM_TEST = 200
"""Held-out examples."""
STEP = 4
"""A character is 1 to 4 further than the one before, so that there is something to learn."""


def load_pictures(config: TaskConfig, num_examples: int = 10_000) -> Dataset:
    """Return pictures (N, 3, 32, 32), uint8: each the mean of its class's picture and of noise."""
    rng = np.random.default_rng(SEED)
    total = num_examples + NUM_TEST
    label = rng.integers(NUM_CLASSES, size=total)
    of_class = rng.integers(128, size=(NUM_CLASSES, CHANNELS, SIDE, SIDE), dtype=np.uint8)
    noise = rng.integers(128, size=(total, CHANNELS, SIDE, SIDE), dtype=np.uint8)
    columns = {"image": torch.from_numpy(of_class[label] + noise), "label": torch.from_numpy(label)}
    train, test = _halves(columns, num_examples)
    classes = tuple(map(str, range(NUM_CLASSES)))
    return Dataset(config.dataset, "images", train, test, "label", classes, info={"max_value": 255.0})


def load_lines(config: TaskConfig, num_examples: int = 6_400) -> Dataset:
    """Return lines of characters (N, 1 + 64), uint8."""
    rng = np.random.default_rng(SEED)
    steps = rng.integers(1, STEP + 1, size=(num_examples + NUM_TEST, LENGTH))
    text = np.cumsum(steps, axis=1) % (VOCABULARY - 1) + 1
    before = np.zeros((len(text), 1), dtype=np.int64)
    columns = {"text": torch.from_numpy(np.concatenate([before, text], axis=1).astype(np.uint8))}
    return Dataset(config.dataset, "text", *_halves(columns, num_examples))


def _halves(columns: dict[str, torch.Tensor], num_train: int) -> tuple[Examples, Examples]:
    return (
        Examples({name: column[:num_train] for name, column in columns.items()}),
        Examples({name: column[num_train:] for name, column in columns.items()}),
    )


PICTURES = Source("images", load_pictures, packaged=True)
LINES = Source("text", load_lines, packaged=True)
