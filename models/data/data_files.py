"""The files that a dataset was read from, each with its hash."""

from models.core.config import TaskConfig
from models.data.datasets import resolve
from models.data.hashed_files import HashedFile, hash_files
from models.data.source import unreadable


def data_files(config: TaskConfig) -> list[HashedFile]:
    """Return the files that the config's dataset is read from; none for data that comes with a package.

    Raises UserError for a file that cannot be read.
    """
    source, as_loaded = resolve(config)
    with unreadable(config.dataset, source, as_loaded):
        return hash_files(source.files_of(as_loaded))
