"""Where the library `datasets` may read: what a folder says of others' files, it would follow anywhere."""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from models.core.errors import UserError, shown
from models.core.paths import names_a_place

# The library is imported where it is used: it is optional, and takes a second.

_OF_SETS, _OF_SET = "dataset_dict.json", "state.json"
SAVED = (_OF_SETS, _OF_SET)
"""Files by which a folder tells that `save_to_disk` wrote it."""
_PLACES = ("data_files", "data_dir")
"""What a README.md says of a configuration that are names of files and folders."""


@dataclass(frozen=True)
class Places:
    """The files that a dataset may consist of."""

    files: Collection[Path]
    """Those of one's own."""
    folders: Collection[Path]
    """Those of the library's caches."""

    @classmethod
    def of(cls, path: Path | None) -> "Places":
        """Return those of a path of one's own; of None, a name of the hub, those of the caches."""
        from datasets import config

        if path is None:
            caches = (config.HF_CACHE_HOME, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)
            folders = [*caches, *filter(None, [os.environ.get("HF_HUB_CACHE")])]
            return cls((), [Path(each).expanduser().resolve() for each in folders])
        files = files_below(path)
        # The library itself names the folder by its real path.
        real = [path.resolve() / each.relative_to(path) for each in files]
        return cls({*files, *real}, [Path(config.EXTRACTED_DATASETS_PATH).resolve()])

    def has(self, path: str) -> bool:
        """Return whether a path is one of them."""
        if Path(path) in self.files:
            return True
        real = Path(path).resolve() if Path(path).is_absolute() else None
        return real is not None and any(real.is_relative_to(folder) for folder in self.folders)

    def check(self, folder: Path, paths: Iterable[str]) -> None:
        """Raise UserError for the first path that a folder names and that is no file below it."""
        for path in paths:
            if Path(path) not in self.files:
                raise _outside(folder, path)


def files_below(path: Path) -> list[Path]:
    """Return a file, or those below a folder: not those of folders to which there are links."""
    return [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())


def load_saved(folder: Path, places: Places) -> Any:
    """Return what `save_to_disk` wrote, where it names no file outside its folder."""
    import datasets

    parts = [folder]
    if (folder / _OF_SETS).is_file():
        parts = [folder / split for split in _json(folder / _OF_SETS)["splits"]]
    for part in parts:
        places.check(folder, [str(part / _OF_SET)])
        places.check(folder, [str(part / file["filename"]) for file in _json(part / _OF_SET)["_data_files"]])
    return datasets.load_from_disk(str(folder))


def load_folder(folder: Path, subset: str, places: Places) -> Any:
    """Return what the files of a folder are to the library, where its README.md names no other places."""
    import datasets

    for place in _named_places(folder):
        if names_a_place(place) or urlparse(place).scheme or "::" in place:  # before any is asked for
            raise _outside(folder, place)
    builder = datasets.load_dataset_builder(str(folder), subset or None)
    for files in (builder.config.data_files or {}).values():
        places.check(folder, map(str, files))
    return datasets.load_dataset(str(folder), subset or None)


def _named_places(folder: Path) -> Iterator[str]:
    """Yield the names of files and folders in what a folder says of itself, read as the library does."""
    from datasets import config, load

    library: Any = load
    readme, alone = folder / config.REPOCARD_FILENAME, folder / config.REPOYAML_FILENAME
    if readme.is_file():
        yield from _of_configs(library.DatasetCard.load(readme).data.to_dict())
    if alone.is_file():
        yield from _of_configs(library.yaml.safe_load(alone.read_text(encoding="utf-8")))


def _of_configs(said: Any) -> Iterator[str]:
    configs = said.get("configs") if isinstance(said, Mapping) else None
    for each in configs if isinstance(configs, list) else []:
        if isinstance(each, Mapping):
            yield from _texts([each.get(name) for name in _PLACES])


def _texts(said: Any) -> Iterator[str]:
    """Yield the texts in lists and tables of any depth."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, Mapping):
        yield from _texts(list(said.values()))
    elif isinstance(said, list):
        for each in said:
            yield from _texts(each)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _outside(folder: Path, place: str) -> UserError:
    return UserError(
        f"{folder} must name files below itself, which are no links to folders, got {shown(place)}: put what "
        "belongs to it there"
    )
