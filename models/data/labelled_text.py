"""Texts that each have a class: as columns, and from tables."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.core.errors import UserError, shown
from models.data.dataset import Dataset, Examples
from models.data.held_out import class_names, hold_out
from models.data.large import take_rows, zeros
from models.data.names import class_name, client_names, label_text
from models.data.table import Part, Table

KIND = "labelled-text"
LONGEST = 2**16
"""Bytes of a text: all take the place of the longest."""
MOST_CLASSES = 1000
FILL = 0
"""In the places behind a text's last byte; text holds no such byte."""

Half = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Texts in UTF-8 (N, L), and their classes (N,)."""


@dataclass(frozen=True)
class TextColumns:
    """Which columns hold what."""

    text: Sequence[str]
    """One or several, which are joined with a blank between."""
    label: str
    client: str
    """"" = the table knows of no clients."""

    def __post_init__(self) -> None:
        if len({*self.text, self.label, self.client}) < 2 + len(self.text):
            raise UserError(
                f"text, label and client must name different columns, got {shown(list(self.text))}, "
                f"{shown(self.label)} and {shown(self.client)}"
            )

    @property
    def needed(self) -> list[str]:
        """Names of the columns, each once."""
        return list(dict.fromkeys(filter(None, (*self.text, self.label, self.client))))


@dataclass(frozen=True)
class _Survey:
    """What a first reading of a table finds."""

    label: NDArray[np.int32]
    """Place in `names` of each row's class."""
    names: Sequence[str]
    client: NDArray[np.int32]
    clients: Sequence[str]
    longest: int
    """Bytes of the longest text."""


def read_labelled_text(
    name: str, tables: Sequence[Table], columns: TextColumns, classes: Sequence[str]
) -> Dataset:
    """Return the texts of one table, of which about a tenth is held out, or of one for each part.

    Each table is read twice: to number its classes and to know the longest text, then to keep the texts.
    `classes` names the classes in the order of their numbers; unless given, they are those that there are.
    """
    # Nobody asks who owns what is held out.
    of_tables = [columns, *(replace(columns, client="") for _ in tables[1:])]
    surveys = []
    for table, each in zip(tables, of_tables, strict=True):
        table.check_columns(each.needed)
        surveys.append(_survey(table, each))
    found = {each for survey in surveys for each in survey.names}
    given, known = ([*map(label_text, each)] for each in (classes, tables[0].classes(columns.label)))
    if given or known:
        for table, survey in zip(tables, surveys, strict=True):  # so that the line names the one at fault
            class_names(table.name, survey.names, given, known)
    names = class_names(tables[0].name, found, given, known)
    halves = [_kept(*each, names) for each in zip(tables, surveys, of_tables, strict=True)]
    train_rows = np.arange(len(surveys[0].label))
    if len(halves) == 1:
        text, label = halves[0]
        train_rows, test_rows = hold_out(row.tobytes().rstrip(bytes([FILL])) for row in text)
        halves = [(take_rows(text, rows), label[rows]) for rows in (train_rows, test_rows)]
    if not columns.client:
        return dataset_of(name, halves, names)
    clients, client = np.unique(surveys[0].client[train_rows], return_inverse=True)
    return dataset_of(name, halves, names, client, tuple(surveys[0].clients[number] for number in clients))


def dataset_of(
    name: str,
    halves: Sequence[Half],
    classes: tuple[str, ...],
    client: NDArray[np.int64] | None = None,
    client_names: tuple[str, ...] = (),
) -> Dataset:
    """Return training and held-out texts as a dataset: columns `text` (N, L) and `label` (N,).

    A third half is for validation.
    """
    train, test, *validation = (
        Examples({"text": torch.from_numpy(text), "label": torch.from_numpy(label)}) for text, label in halves
    )
    return Dataset(
        name,
        KIND,
        train,
        test,
        label="label",
        classes=classes,
        client=client,
        client_names=client_names,
        validation=validation[0] if validation else None,
    )


def half_of(texts: Sequence[str], labels: Sequence[int]) -> Half:
    """Return texts and the numbers of their classes as columns."""
    encoded = [text.encode() for text in texts]
    text = zeros((len(texts), max(map(len, encoded), default=1)), np.uint8)
    for row, content in enumerate(encoded):
        text[row, : len(content)] = np.frombuffer(content, np.uint8)
    return text, np.array(labels, dtype=np.int64)


def read_texts(text: Tensor) -> list[str]:
    """Return the texts of a column (N, L)."""
    return [row.tobytes().rstrip(bytes([FILL])).decode() for row in text.numpy()]


def _survey(table: Table, columns: TextColumns) -> _Survey:
    numbers: dict[str, int] = {}
    clients: dict[str, int] = {}
    label: list[int] = []
    client: list[int] = []
    longest = 0
    for part in table.filled(columns.needed):
        texts = encoded_texts(table, part, columns.text, LONGEST)
        longest = max(longest, *map(len, texts))
        for place, cell in zip(part.place, part.cells[columns.label], strict=True):
            called = class_name(table, place, columns.label, cell)
            label.append(numbers.setdefault(called, len(numbers)))
            if len(numbers) > MOST_CLASSES:
                raise table.refuse(place, columns.label, f"one of at most {MOST_CLASSES} classes", cell)
        if columns.client:
            owners = client_names(table, part, columns.client)
            client += [clients.setdefault(each, len(clients)) for each in owners]
    if len(label) < 2:
        raise UserError(f"{table.name} must hold two texts or more, got {len(label)}")
    order = sorted(clients)
    by_name = np.argsort([clients[each] for each in order])  # number in the file -> place among sorted names
    return _Survey(
        np.array(label, np.int32),
        list(numbers),
        by_name.astype(np.int32)[np.array(client, np.int32)],
        order,
        longest,
    )


def _kept(table: Table, survey: _Survey, columns: TextColumns, classes: Sequence[str]) -> Half:
    """Read a table again, and keep its texts."""
    text = zeros((len(survey.label), survey.longest), np.uint8)
    row = 0
    for part in table.parts(columns.needed):
        for content in encoded_texts(table, part, columns.text):
            text[row, : len(content)] = np.frombuffer(content, np.uint8)
            row += 1
    place = {name: number for number, name in enumerate(classes)}
    numbers = np.array([place[name] for name in survey.names], dtype=np.int64)
    return text, numbers[survey.label]


def encoded_texts(
    table: Table, part: Part, columns: Sequence[str], longest: float = math.inf
) -> Iterator[bytes]:
    """Yield each row's text in UTF-8; UserError for one that is too long, or holds what no text does."""
    cells = (part.cells[each] for each in columns)
    for place, row in zip(part.place, zip(*cells, strict=True), strict=True):
        for column, cell in zip(columns, row, strict=True):
            if not isinstance(cell, str):
                raise table.refuse(place, column, "a text", cell)
            if "\0" in cell:
                raise table.refuse(place, column, "without a zero byte", cell)
        try:
            content = " ".join(row).encode()
        except UnicodeEncodeError as error:  # half of a sign, as JSON can hold it
            raise table.refuse(place, columns[0], "whole characters", row[0]) from error
        if len(content) > longest:
            raise table.refuse(place, columns[0], f"of at most {longest:,} bytes", row[0])
        yield content
