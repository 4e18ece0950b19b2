"""What a dataset is: named columns of examples, split once into those to train on and those held out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

Indices = np.ndarray[Any, np.dtype[np.int64]]


class Rows(Mapping[str, Tensor]):
    """Columns at some rows of others, each copied out when it is first asked for.

    So a client's examples are an index, and a batch is copied once, out of the dataset itself.
    """

    def __init__(self, source: Mapping[str, Tensor], index: Tensor) -> None:
        self.source = source
        self.index = index
        """Rows of the source (num_examples,), int64."""
        self._copied: dict[str, Tensor] = {}

    def __getitem__(self, column: str) -> Tensor:
        if column not in self._copied:
            self._copied[column] = self.source[column].index_select(0, self.index)
        return self._copied[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.source)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.source)


@dataclass(frozen=True)
class Examples:
    """Rows of data: columns that share their first axis."""

    columns: Mapping[str, Tensor]
    """Column name -> (num_examples, ...)."""

    def __len__(self) -> int:
        if isinstance(self.columns, Rows):
            return len(self.columns.index)
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, column: str) -> Tensor:
        return self.columns[column]

    @property
    def source(self) -> Mapping[str, Tensor]:
        """The columns that these are rows of; of those that are rows of none, their own."""
        return self.columns.source if isinstance(self.columns, Rows) else self.columns

    def shape(self, column: str) -> tuple[int, ...]:
        """Return the shape of a column, of which nothing is copied: (num_examples, ...)."""
        return (len(self), *self.source[column].shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the columns lie."""
        return next((column.device for column in self.source.values()), torch.device("cpu"))

    @property
    def num_bytes(self) -> int:
        """What the columns take of memory."""
        if isinstance(self.columns, Rows):  # once they are copied
            each = sum(column.nbytes // max(len(column), 1) for column in self.columns.source.values())
            return each * len(self)
        return sum(column.nbytes for column in self.columns.values())

    def to(self, device: torch.device) -> "Examples":
        """Return the examples with all columns on the device."""
        return Examples({name: column.to(device) for name, column in self.columns.items()})

    def take(self, indices: Indices | Tensor) -> "Examples":
        """Return the examples at `indices` (num_examples,), in that order; an example may be taken twice."""
        return Examples(dict(self._rows(indices)))

    def at(self, indices: Indices | Tensor) -> "Examples":
        """Return what `take` returns, of which each column is copied when it is first asked for.

        For what is soon dropped, as a batch is: all of these examples stay in memory until then.
        """
        return Examples(self._rows(indices))

    def _rows(self, indices: Indices | Tensor) -> Rows:
        device = self.device
        if isinstance(indices, Tensor) and indices.dtype == torch.int64 and indices.device == device:
            index = indices
        else:
            index = torch.as_tensor(indices, dtype=torch.int64, device=device)
        if isinstance(self.columns, Rows):
            index = self.columns.index.index_select(0, index)
        return Rows(self.source, index)

    def shuffled(
        self, generator: torch.Generator, batch_size: int, alone: bool = True
    ) -> "Iterator[Examples]":
        """Yield every example once, in an order that is drawn, `batch_size` at a time or fewer at the end.

        Unless the last may be `alone`, it is then joined to those before it.
        """
        order = self._rows(torch.randperm(len(self), generator=generator))
        batches = list(order.index.split(batch_size))
        if not alone and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        for index in batches:
            yield Examples(Rows(order.source, index))


@dataclass(frozen=True)
class Dataset:
    """A named dataset, loaded into memory and split into examples to train on and others held out."""

    name: str
    kind: str
    """What the examples are ("images"); a task says which kind it takes."""
    train: Examples
    test: Examples
    """Held-out examples, by which nothing is chosen."""
    label: str | None = None
    """Column of integer classes (num_examples,) that partitioners skew by; None where examples have none."""
    classes: tuple[str, ...] = ()
    """Class names, in the order of the integers in the label column."""
    client: Indices | None = None
    """Natural client, 0 to n - 1, of every training example; None where the data knows of none."""
    client_names: tuple[str, ...] = ()
    """What the data calls its natural clients, such as a ticker or a file; () where they have no names."""
    ordered: bool = False
    """Whether examples follow one another, as in time: a client then keeps its last for its evaluation."""
    validation: Examples | None = None
    """Examples that no client gets, by which rounds and runs are chosen; None where there are none."""
    group: Indices | None = None
    """Group of every training example (num_examples,), such as its dialogue: set apart for validation as a
    whole, or not at all; None where each example stands by itself, or `ordered` says which are."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """What a task of this kind needs beside the examples; for images "max_value", the value of full white."""
