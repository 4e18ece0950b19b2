"""Datasets by name."""

import functools
import inspect
import re
from collections.abc import Mapping
from pathlib import Path

from models.core.config import TaskConfig, parse_options
from models.core.errors import UserError, unknown
from models.core.plugins import check_options, load_object, offers
from models.data import conll, environments, images, pii, series, series_files, text
from models.data.dataset import Dataset
from models.data.source import Source

DATASETS: Mapping[str, Source] = {
    "digits": Source("images", images.load_digits, packaged=True),
    "mnist-5k": Source("images", images.load_mnist_5k, packaged=True),
    "mnist": Source("images", images.load_mnist, files=images.files_of_mnist),
    "fashion-mnist": Source("images", images.load_fashion_mnist, files=images.files_of_fashion_mnist),
    "cifar10": Source("images", images.load_cifar10, files=images.files_of_cifar10),
    "stocks": Source("series", series.load_stocks, packaged=True),
    "sine": Source("series", series.load_sine, packaged=True),
    "csv:": Source("series", series_files.load_csv),
    "pydoc": Source("text", text.load_pydoc, packaged=True),
    "text:": Source("text", text.load_text),
    "pii": Source("tagged-sentences", pii.load_pii, packaged=True),
    "conll:": Source("tagged-sentences", conll.load_conll),
    "gym:": Source("environments", environments.load_environments, packaged=True),
}
ENTRY_POINTS = "polyfed.datasets"


# The plan, the ServerApp and the ClientApp of one process share what they loaded.
@functools.lru_cache(maxsize=1)
def load_dataset(config: TaskConfig) -> Dataset:
    """Load the dataset that `config.dataset` names.

    Raises UserError for an unknown name, options that it does not take, a data-dir that is not absolute, and
    files that are missing.
    """
    if config.data_dir and not Path(config.data_dir).is_absolute():
        raise UserError(f"data-dir must be an absolute folder, got {config.data_dir!r}")
    load = find_source(config.dataset).load
    options = parse_options("dataset-options", config.dataset_options)
    given = tuple(inspect.signature(load).parameters)[:1]  # the config
    check_options(f"dataset {config.dataset}", load, options, given)
    return load(config, **options)


def find_source(name: str) -> Source:
    """Return the source of the dataset `name`: a built-in, or an entry point of `polyfed.datasets`.

    A source may serve all names with a prefix: "gym:" that of "gym:CartPole-v1". Any other name with a colon
    is "module:NAME", a source in a module of the user's folder or of an installed package.
    """
    prefix, colon, _ = name.partition(":")
    offered = offers(DATASETS, ENTRY_POINTS)
    if prefix + colon not in offered:
        if re.fullmatch(r"[\w.]+:\w+", name):
            return dataset_source(name, load_object(name, "dataset"))
        raise unknown("dataset", name, offered)
    return dataset_source(name, offered[prefix + colon].load())


def dataset_source(name: str, found: object) -> Source:
    """Return what was found under `name`; UserError where it is no source of a dataset."""
    if not isinstance(found, Source):
        raise UserError(f"dataset {name!r} must be a models.Source, and it is {found!r}")
    return found
