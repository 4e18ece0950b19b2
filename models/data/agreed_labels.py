"""The labels that machines have agreed on, put into the options with which each reads its own data."""

from collections.abc import Sequence

from models.core.config import TaskConfig, parse_options
from models.core.errors import UserError
from models.core.toml import quoted
from models.data.datasets import find_source
from models.data.labels import Labels

KEY = "dataset-options"


def open_labels(config: TaskConfig) -> Labels | None:
    """Return how machines agree on labels; None where the config names them, or the dataset takes none."""
    labels = find_source(config.dataset).labels
    return None if labels is None or parse_options(KEY, config.dataset_options).get(labels.option) else labels


def labelled(config: TaskConfig, names: Sequence[str]) -> TaskConfig:
    """Return the config by which data is read with these labels; with none of them, as it is.

    Raises UserError where the config names labels itself or its dataset takes none, and ValueError for names
    that no labels may have.
    """
    if not names:
        return config
    labels = open_labels(config)
    if labels is None:
        raise UserError(f"dataset {config.dataset!r} takes no labels that machines have agreed on")
    labels.check(names)
    options = parse_options(KEY, config.dataset_options) | {labels.option: [*names]}
    return config.model_copy(update={"dataset_options": quoted(options)})
