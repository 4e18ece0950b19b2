"""Labelled pictures of one's own: a folder a class, below folders of clients, or files that a table lists."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.core.config import TaskConfig, parse_options
from models.core.errors import UserError
from models.core.paths import leads_out
from models.data.dataset import Dataset
from models.data.held_out import (
    class_names,
    files_of_parts,
    folders_of_parts,
    label_name,
    named_classes,
)
from models.data.names import class_name, client_names, label_text
from models.data.pictures import ENDINGS, Half, Shape, is_picture, picture_dataset, read_picture
from models.data.source import source_path
from models.data.table_csv import CsvTable

FILE, LABEL, CLIENT = "file", "label", "client"
"""Columns of a table of pictures."""


class Picture(NamedTuple):
    """A file, its class, and whose it is; "" = nobody's."""

    path: Path
    label: str
    client: str = ""


def load_image_folder(
    config: TaskConfig,
    size: int = 32,
    channels: int = 3,
    classes: Sequence[str] = (),
    file: str = FILE,
    label: str = LABEL,
    client: str = CLIENT,
    encoding: str = "utf-8",
    delimiter: str = ",",
) -> Dataset:
    """Return the pictures of "images:PATH", a folder of pictures or a CSV file that lists them.

    A folder holds CLASS/PICTURE or CLIENT/CLASS/PICTURE, or that below train and test (or another of
    HELD_OUT); val beside both is for validation. A CSV file has the columns `file` (a path below the CSV
    file's own folder), `label` and, where there are clients, `client`; in a folder train.csv, test.csv and
    val.csv are such parts. Pictures of any size are scaled to `size` x `size` pixels of `channels` channels
    (1 or 3). `classes` names the classes, in the order of their numbers, where one machine may lack some of
    them. Without a half of its own a tenth is held out. Raises UserError for a folder without pictures, a
    class that is not named, and a file that is no picture.
    """
    shape, path = Shape(size, channels), source_path(config)
    halves = _halves(config, path, (file, label, client), encoding, delimiter)
    if not all(halves):
        raise UserError(f"{path} holds no pictures: list one in each line below the first")
    found = sorted({picture.label for half in halves for picture in half})
    given = named_classes(classes)
    if _tables(path):
        given = tuple(map(label_text, given))
    names = class_names(path, found, given or found)  # folders by name, as ever
    owners = [picture.client for picture in halves[0]]
    loaded = [_read(half, names, shape) for half in halves]
    return picture_dataset(config.dataset, loaded, names, owners if any(owners) else ())


def files_of_image_folder(config: TaskConfig) -> list[Path]:
    """Return the files that such a dataset is read from: tables and pictures, and nothing beside them."""
    path = source_path(config)
    tables = _tables(path)
    if not (tables or path.is_dir()):
        return []
    given = parse_options("dataset-options", config.dataset_options)
    columns = [given.get(name, name) for name in (FILE, LABEL, CLIENT)]
    how = {name: given[name] for name in ("encoding", "delimiter") if name in given}
    halves = _halves(config, path, columns, **how)
    return sorted({*tables, *(picture.path for half in halves for picture in half)})


def _halves(
    config: TaskConfig, path: Path, columns: Sequence[str], encoding: str = "utf-8", delimiter: str = ","
) -> list[list[Picture]]:
    """Return the pictures of the one half that there is, or of both, and of those for validation if any."""
    tables = _tables(path)
    if tables:
        return [list(_listed(CsvTable(each, encoding, delimiter), columns)) for each in tables]
    return [list(_found(half)) for half in _folders(config, path)]


def _tables(path: Path) -> list[Path]:
    """Return the tables that list pictures; none for a folder of classes."""
    if path.suffix.lower() == ".csv" and path.is_file():
        return [path]
    return files_of_parts(path, ".csv")


def _folders(config: TaskConfig, path: Path) -> list[Path]:
    """Return the folder of all pictures, or those of the halves."""
    if not path.is_dir():
        raise UserError(
            f"dataset {config.dataset!r} must name a folder of pictures, or a CSV file that lists them, got "
            f"{path}"
        )
    return folders_of_parts(path, lambda folder: bool(_pictures(folder)))


def _found(folder: Path) -> Iterator[Picture]:
    """Yield the pictures below a folder, in the order of their names."""
    inner = folders_in(folder)
    clients = {each: folders_in(each) for each in inner}
    with_pictures = [each for each in inner if _pictures(each)]
    of_clients = [each for each in inner if any(_pictures(label) for label in clients[each])]
    if not (with_pictures or of_clients):
        raise UserError(
            f"{folder} holds no pictures: put a folder for each class there, with files that end in "
            f"{', '.join(ENDINGS)}"
        )
    if with_pictures and of_clients:
        raise UserError(
            f"{folder} must hold folders of classes or of clients, and {with_pictures[0].name} holds "
            f"pictures while {of_clients[0].name} holds folders of them: move one of the two"
        )
    for each in inner:
        for label in clients[each] if of_clients else [each]:
            for path in _pictures(label):
                yield Picture(path, label_name(label.name), each.name if of_clients else "")


def _listed(table: CsvTable, columns: Sequence[str]) -> Iterator[Picture]:
    """Yield the pictures that a table lists, below the folder in which it lies."""
    file, label, client = columns
    needed = [file, label, *([client] if client != CLIENT or client in table.columns else [])]
    listed: dict[Path, int] = {}
    table.check_columns(needed)
    for part in table.filled(needed):
        owners = client_names(table, part, client) if client in needed else [""] * len(part.place)
        for place, owner, *cells in zip(part.place, owners, part.cells[file], part.cells[label], strict=True):
            named, of_class = map(str.strip, cells)
            if leads_out(named):
                raise table.refuse(place, file, "a path below the folder of this file, without '..'", named)
            path = table.path.parent / named
            if not is_picture(path):
                allowed = f"the path of a picture that is there, below {table.path.parent}"
                raise table.refuse(place, file, allowed, named)
            if (first := listed.setdefault(path, place)) != place:
                raise table.refuse(place, file, f"another picture than that of line {first}", named)
            yield Picture(path, class_name(table, place, label, of_class), owner)


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_picture(path))


def _read(pictures: Sequence[Picture], classes: Sequence[str], shape: Shape) -> Half:
    number = {name: place for place, name in enumerate(classes)}
    images = shape.column(len(pictures), (pixels_of(picture.path, shape) for picture in pictures))
    return images, np.array([number[picture.label] for picture in pictures], dtype=np.int64)


def pixels_of(path: Path, shape: Shape) -> NDArray[np.uint8]:
    """Return a picture as (C, H, W)."""
    return read_picture(path, shape.pixels)
