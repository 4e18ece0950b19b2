"""Where datasets come from: a package, the folder data-dir, or the path in their name, as in "csv:PATH"."""

import csv
import json
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.labels import Labels

_OF_FILES = (
    OSError,  # gzip's of damage too
    EOFError,
    UnicodeDecodeError,
    csv.Error,
    json.JSONDecodeError,
    lzma.LZMAError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a file raises that is not there, may not be read, or holds something else than it should."""
_MOST_NAMED = 3
"""Files named by an error that does not say which of them it is about."""


@dataclass(frozen=True)
class Source:
    """How a dataset is loaded, and what is known of it before."""

    kind: str
    """What its examples are; the `kind` of the dataset and of the tasks that learn from it."""
    load: Callable[..., Dataset]
    """Takes the config, and as further parameters with defaults the options of `dataset-options`."""
    packaged: bool = False
    """Whether it comes with a dependency, and is read from no folder."""
    takes: str = ""
    """What follows a colon after the dataset's name, in a word such as "FILE" or "DIR"; "" = nothing does."""
    files: Callable[[TaskConfig], Sequence[Path]] | None = None
    """The files that it reads; unless given, those at the path in the dataset's name."""
    parsed_with: tuple[str, ...] | None = None
    """Packages, as pip calls them, whose versions decide the examples beside its name, options and files.

    With it the parsed dataset is kept on this machine for the next process, see `cache`, and the loader is
    told `dataset`, `data_dir` and `download` of the config alone. None = it is parsed anew in every process,
    as is best for what takes less than a tenth of a second.
    """

    labels: Labels | None = None
    """How machines agree on labels, of which each may have some alone; None = they must have them alike."""
    check_name: Callable[[TaskConfig, Sequence[str]], None] | None = None
    """Takes the config as its loader sees it, and modules; raises UserError for a name that would have a node
    import another module than these, or read what lies elsewhere. Unless given, what follows the colon is a
    path where it comes with no package."""

    also: tuple[str, ...] = ()
    """Other kinds that its examples may be of, where its options and files decide."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds that its examples may be of."""
        return (self.kind, *self.also)

    def form(self, name: str) -> str:
        """Return how a dataset of this source is named, such as "csv:FILE"."""
        return f"{name}:{self.takes}" if self.takes else name

    def files_of(self, config: TaskConfig) -> Sequence[Path]:
        """Return the files that it reads for this config; those in folders further down are not named."""
        if self.files:
            return self.files(config)
        _, _, named = config.dataset.partition(":")  # a path, or whatever else a package makes of it
        if self.packaged or not named:
            return ()
        path = Path(config.data_dir, named)
        if not path.is_absolute():
            return ()
        if not path.is_dir():
            return [path] if path.is_file() else []
        return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))


def source_path(config: TaskConfig) -> Path:
    """Return the path after the name in `config.dataset`: relative to `config.data_dir` if set, or absolute.

    Raises UserError for neither and for both: a node that has its own data-dir would read past it.
    """
    kind, _, path = config.dataset.partition(":")
    if path and Path(path).is_absolute() != bool(config.data_dir):
        return Path(config.data_dir, path)
    if path and config.data_dir:
        raise UserError(
            f"after '{kind}:' data-dir is set, so give a path relative to it, or leave data-dir out, got "
            f"{path!r} and data-dir {config.data_dir!r}"
        )
    raise UserError(
        f"after '{kind}:' dataset must have an absolute path, or a path relative to data-dir where that is "
        f"set, got {path!r} and data-dir {config.data_dir!r}"
    )


@contextmanager
def unreadable(name: str, source: Source, config: TaskConfig) -> Iterator[None]:
    """Raise errors of reading files as a UserError that names the dataset and the file.

    `name` is what the run calls the dataset, `config` what its loader sees.
    """
    try:
        yield
    except _OF_FILES as error:
        named = [getattr(error, name, None) for name in ("filename", "filename2")]
        files = [str(file) for file in named if isinstance(file, str | bytes | Path)]
        if not files:
            with suppress(OSError, UserError):  # its own line is about what went wrong first
                files = [str(file) for file in source.files_of(config)]
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        about = f"{', '.join(files[:_MOST_NAMED])}{', ...' * (len(files) > _MOST_NAMED)}: " if files else ""
        raise UserError(
            f"dataset {name!r} cannot be read: {about}{type(error).__name__}"
            f"{f' ({reason})' if reason else ''}; check that its files are there, whole and may be read"
        ) from error
