"""Pairs of texts, such as a sentence and its translation, or what was said and its reply."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.data.dataset import Dataset, Examples, Indices

KIND = "parallel-text"
EMPTY = 0
"""The byte behind the end of a text; text holds no such byte."""


class Pair(NamedTuple):
    """A text, what is to be made of it, and whose it is."""

    source: str
    target: str
    client: int = 0


def dataset_of(
    name: str,
    train: Sequence[Pair],
    test: Sequence[Pair],
    validation: Sequence[Pair] = (),
    *,
    client_names: tuple[str, ...] = (),
    skipped: int = 0,
    kind: str = KIND,
    info: Mapping[str, Any] | None = None,
    group: Indices | None = None,
) -> Dataset:
    """Turn pairs into columns: `source` (N, S) and `target` (N, T), bytes of UTF-8 with EMPTY behind.

    Bytes need no vocabulary on which clients would first have to agree. Pairs are those of natural clients
    where there are `client_names`; `skipped` of them were left out. `info` is what else a `kind` asks for.
    Those of one `group` belong together, which are those of one source unless told.
    """
    if group is None:
        number: dict[str, int] = {}
        group = np.array([number.setdefault(pair.source, len(number)) for pair in train], dtype=np.int64)
    client = np.array([pair.client for pair in train], dtype=np.int64) if client_names else None
    return Dataset(
        name,
        kind,
        _columns(train),
        _columns(test),
        client=client,
        client_names=client_names,
        validation=_columns(validation) if validation else None,
        group=group,
        info={"skipped": skipped, **(info or {})},
    )


def read(text: Tensor) -> list[str]:
    """Return the texts of a column (N, T)."""
    return [row.tobytes().rstrip(bytes([EMPTY])).decode() for row in text.numpy()]


def _columns(pairs: Sequence[Pair]) -> Examples:
    return Examples(
        {
            "source": padded([pair.source for pair in pairs]),
            "target": padded([pair.target for pair in pairs]),
        }
    )


def padded(texts: Sequence[str]) -> Tensor:
    """Return texts as a column (N, longest), uint8."""
    if not texts:
        return torch.empty(0, 0, dtype=torch.uint8)
    rows = [torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) for text in texts]
    return pad_sequence(rows, batch_first=True, padding_value=EMPTY)
