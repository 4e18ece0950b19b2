"""Datasets by name."""

import functools
from collections.abc import Callable
from pathlib import Path

from models.config import TaskConfig
from models.data import environments, images, ner, pii, series, text
from models.data.dataset import Dataset
from models.errors import UserError, unknown

DATASETS: dict[str, Callable[[TaskConfig], Dataset]] = {
    "digits": images.load_digits,
    "mnist-5k": images.load_mnist_5k,
    "mnist": images.load_mnist,
    "fashion-mnist": images.load_fashion_mnist,
    "cifar10": images.load_cifar10,
    "stocks": series.load_stocks,
    "sine": series.load_sine,
    "csv:": series.load_csv,
    "pydoc": text.load_pydoc,
    "text:": text.load_text,
    "pii": pii.load_pii,
    "conll:": ner.load_conll,
    "gym:": environments.load_environments,
}
PACKAGED = frozenset({"digits", "mnist-5k", "stocks", "sine", "pydoc", "pii", "gym:"})
"""Datasets that come with a dependency, and are read from no folder."""


# The plan, the ServerApp and the ClientApp of one process share what they loaded.
@functools.lru_cache(maxsize=1)
def load_dataset(config: TaskConfig) -> Dataset:
    """Load the dataset that `config.dataset` names.

    Raises UserError for an unknown name, a data-dir that is not absolute, and files that are missing.
    """
    if config.data_dir and not Path(config.data_dir).is_absolute():
        raise UserError(f"data-dir must be an absolute folder, got {config.data_dir!r}")
    key = registered(config.dataset)
    if key not in DATASETS:
        raise unknown("dataset", config.dataset, DATASETS)
    return DATASETS[key](config)


def registered(name: str) -> str:
    """Return the name under which a dataset is registered: "gym:" for "gym:CartPole-v1"."""
    prefix, colon, _ = name.partition(":")
    return prefix + colon
