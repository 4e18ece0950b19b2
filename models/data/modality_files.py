"""Pictures and texts of one's own: a table with columns of both, or folders with files of both.

An example has a picture, a text, or both; what it lacks is an empty cell, or a file that is not there.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.core.config import TaskConfig, parse_options, require
from models.core.errors import UserError
from models.core.paths import leads_out
from models.data.dataset import Dataset
from models.data.held_out import (
    class_names,
    files_of_parts,
    folders_of_parts,
    hold_out,
    label_name,
    named_classes,
)
from models.data.image_files import folders_in, pixels_of
from models.data.large import take_rows
from models.data.modalities import IMAGE, TEXT, Half, dataset_of, text_column
from models.data.names import class_name, client_names, label_text
from models.data.pictures import ENDINGS, Shape, is_picture
from models.data.source import source_path
from models.data.table import check_encoding, is_empty, other_encoding
from models.data.table_csv import CsvTable

LABEL, CLIENT = "label", "client"
NOTE = ".txt"
"""Ending of the files with texts."""
LONGEST = 2**14
"""Largest max_bytes: every example takes the place of so many."""


class Row(NamedTuple):
    """An example before its picture is read."""

    image: Path | None
    text: bytes
    """UTF-8; b"" = it has none."""
    label: str
    client: str = ""


def load_multimodal(
    config: TaskConfig,
    size: int = 32,
    channels: int = 3,
    max_bytes: int = 200,
    classes: Sequence[str] = (),
    image: str = IMAGE,
    text: str = TEXT,
    label: str = LABEL,
    client: str = CLIENT,
    encoding: str = "utf-8",
    delimiter: str = ",",
) -> Dataset:
    """Return the pictures and texts of "multimodal:PATH", a CSV file or a folder.

    A CSV file has the columns `image` (the path of a picture below the file's own folder), `text`, `label`
    and, where there are clients, `client`; an example lacks what is an empty cell. A folder holds
    CLASS/NAME.png with CLASS/NAME.txt beside it, or either alone, or CLIENT/CLASS/NAME.png. In a folder
    train.csv and test.csv, or folders train and test (or another of HELD_OUT), are the halves, and val beside
    both is for validation; otherwise a tenth is held out. Pictures are scaled to `size` x `size` pixels of
    `channels` channels; a text has at most `max_bytes` bytes of UTF-8. Raises UserError for an example
    without either, a class that is not named, and what is no picture or text.
    """
    require(1 <= max_bytes <= LONGEST, "max_bytes", f"1 to {LONGEST}", max_bytes)
    shape, path, encoding = Shape(size, channels), source_path(config), check_encoding(encoding)
    tables, given = _tables(path), named_classes(classes)
    if tables:
        given = tuple(map(label_text, given))
        columns = {IMAGE: image, TEXT: text, LABEL: label, CLIENT: client}
        halves = [list(_listed(CsvTable(each, encoding, delimiter), columns, max_bytes)) for each in tables]
    else:
        halves = [list(_found(each, encoding, max_bytes)) for each in _folders(path, config.dataset)]
    if not all(halves):
        raise UserError(f"{path} holds no examples: list one in each line below the first")
    found = sorted({row.label for half in halves for row in half})
    names = class_names(path, found, given or (() if tables else found))
    columns_of = [_columns(half, names, shape, max_bytes) for half in halves]
    owners = [row.client for row in halves[0]]
    if len(halves) == 1:
        (whole,) = columns_of
        pairs = zip(whole.image, whole.text, strict=True)
        train_rows, test_rows = hold_out(picture.tobytes() + note.tobytes() for picture, note in pairs)
        columns_of = [_at(whole, rows) for rows in (train_rows, test_rows)]
        owners = [owners[row] for row in train_rows.tolist()]
    if not any(owners):
        return dataset_of(config.dataset, columns_of, names)
    clients, number = np.unique(owners, return_inverse=True)
    return dataset_of(config.dataset, columns_of, names, number, tuple(clients.tolist()))


def files_of_multimodal(config: TaskConfig) -> list[Path]:
    """Return the files that such a dataset is read from: tables, pictures and texts."""
    path = source_path(config)
    tables = _tables(path)
    if not (tables or path.is_dir()):
        return []
    given = parse_options("dataset-options", config.dataset_options)
    columns = {name: given.get(name, name) for name in (IMAGE, TEXT, LABEL, CLIENT)}
    how = {name: given[name] for name in ("encoding", "delimiter") if name in given}
    if tables:
        rows = [row for each in tables for row in _listed(CsvTable(each, **how), columns, LONGEST)]
        return sorted({*tables, *(row.image for row in rows if row.image)})
    files = [file for each in _folders(path, config.dataset) for file in each.rglob("*")]
    return sorted(file for file in files if is_picture(file) or _is_note(file))


def _tables(path: Path) -> list[Path]:
    """Return the tables that list examples; none for a folder of files."""
    if path.suffix.lower() == ".csv" and path.is_file():
        return [path]
    return files_of_parts(path, ".csv")


def _folders(path: Path, name: str) -> list[Path]:
    """Return the folder of all examples, or those of the halves."""
    if not path.is_dir():
        raise UserError(
            f"dataset {name!r} must name a folder of pictures and texts, or a CSV file that lists them, got "
            f"{path}"
        )
    return folders_of_parts(path, lambda folder: bool(_files(folder)), "examples")


def _listed(table: CsvTable, columns: Mapping[str, str], max_bytes: int) -> Iterator[Row]:
    """Yield the examples that a table lists."""
    image, text, label, client = (columns[name] for name in (IMAGE, TEXT, LABEL, CLIENT))
    owned = [client] if client != CLIENT or client in table.columns else []
    table.check_columns([image, text, label, *owned])
    for part in table.parts([image, text, label, *owned]):
        table.check_filled(part, [label])
        owners = client_names(table, part, client) if owned else [""] * len(part.place)
        cells = zip(part.place, owners, *(part.cells[name] for name in (image, text, label)), strict=True)
        for place, owner, picture, note, of_class in cells:
            if is_empty(picture) and is_empty(note):
                raise table.refuse(
                    place, image, f"filled in where {text} is empty, or the row left out", picture
                )
            path = None if is_empty(picture) else _picture(table, place, image, picture.strip())
            content = note.strip().encode()
            if len(content) > max_bytes or b"\0" in content:
                allowed = f"a text of at most {max_bytes} bytes without zeros (max_bytes in dataset-options)"
                raise table.refuse(place, text, allowed, note)
            yield Row(path, content, class_name(table, place, label, of_class.strip()), owner)


def _picture(table: CsvTable, place: int, column: str, named: str) -> Path:
    if leads_out(named):
        raise table.refuse(place, column, "a path below the folder of this file, without '..'", named)
    path = table.path.parent / named
    if not is_picture(path):
        raise table.refuse(
            place, column, f"the path of a picture that is there, below {table.path.parent}", named
        )
    return path


def _found(folder: Path, encoding: str, max_bytes: int) -> Iterator[Row]:
    """Yield the examples below a folder, in the order of their names."""
    inner = folders_in(folder)
    with_files = [each for each in inner if _files(each)]
    of_clients = [each for each in inner if any(_files(label) for label in folders_in(each))]
    if not (with_files or of_clients):
        raise UserError(
            f"{folder} holds no pictures and no texts: put a folder for each class there, with files that "
            f"end in {NOTE}, {', '.join(ENDINGS)}"
        )
    if with_files and of_clients:
        raise UserError(
            f"{folder} must hold folders of classes or of clients, and {with_files[0].name} holds files "
            f"while {of_clients[0].name} holds folders of them: move one of the two"
        )
    for each in inner:
        for label in folders_in(each) if of_clients else [each]:
            yield from _of_class(label, each.name if of_clients else "", encoding, max_bytes)


def _of_class(folder: Path, client: str, encoding: str, max_bytes: int) -> Iterator[Row]:
    pictures: dict[str, Path] = {}
    texts: dict[str, bytes] = {}
    for file in _files(folder):
        if _is_note(file):
            texts[file.stem] = _read(file, encoding, max_bytes)
        elif file.stem in pictures:
            raise UserError(f"{file} is a second picture of {file.stem}: an example has one, so rename it")
        else:
            pictures[file.stem] = file
    for stem in sorted(pictures | texts):
        text = texts.get(stem, b"")
        if stem not in pictures and not text:
            raise UserError(f"{folder / stem}{NOTE} is empty, and there is no picture {stem}: leave it out")
        yield Row(pictures.get(stem), text, label_name(folder.name), client)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if is_picture(file) or _is_note(file))


def _is_note(file: Path) -> bool:
    return file.suffix.lower() == NOTE and not file.name.startswith(".") and file.is_file()


def _read(file: Path, encoding: str, max_bytes: int) -> bytes:
    """Return the text of a file, without blanks at its ends."""
    try:
        content = file.read_text(encoding=encoding).strip().encode()
    except UnicodeError as error:
        raise other_encoding(str(file), encoding, error) from error
    if len(content) > max_bytes or b"\0" in content:
        raise UserError(
            f"{file} must be a text of at most {max_bytes} bytes without zeros, got {len(content)}: set "
            "max_bytes higher in dataset-options, or shorten it"
        )
    return content


def _columns(rows: Sequence[Row], classes: Sequence[str], shape: Shape, max_bytes: int) -> Half:
    number = {name: place for place, name in enumerate(classes)}
    blank = np.zeros((shape.channels, shape.size, shape.size), np.uint8)
    pictures = (blank if row.image is None else pixels_of(row.image, shape) for row in rows)
    return Half(
        shape.column(len(rows), pictures),
        text_column([row.text for row in rows], max_bytes),
        {
            IMAGE: np.array([row.image is not None for row in rows]),
            TEXT: np.array([bool(row.text) for row in rows]),
        },
        np.array([number[row.label] for row in rows], dtype=np.int64),
    )


def _at(half: Half, rows: np.ndarray) -> Half:
    has = {name: each[rows] for name, each in half.has.items()}
    return Half(take_rows(half.image, rows), half.text[rows], has, half.label[rows])
