"""Sentences whose words carry entity tags."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.core.errors import UserError, shown
from models.data.dataset import Dataset, Examples
from models.data.held_out import label_name
from models.data.tag_schemes import OUTSIDE

NO_WORD = -1
"""Padding after the last word of a sentence, in both columns."""


class Sentence(NamedTuple):
    """Words, and an IOB2 tag for each: "O", or "B-" or "I-" and an entity type."""

    words: Sequence[str]
    tags: Sequence[str]
    client: int = 0


def dataset_of(
    name: str,
    train: Sequence[Sentence],
    test: Sequence[Sentence],
    validation: Sequence[Sentence] = (),
    *,
    natural: bool = False,
    client_names: tuple[str, ...] = (),
    types: Sequence[str] = (),
) -> Dataset:
    """Turn sentences into columns: `word` (N, T) and `tag` (N, T), padded with NO_WORD, and `length` (N,).

    `info["words"]` and `info["tags"]` say what the numbers stand for. `types` are those of the entities;
    unless given, those that there are. Raises UserError for a sentence with another.
    """
    every = (*train, *test, *validation)
    found = sorted({tag[2:] for sentence in every for tag in sentence.tags if tag != OUTSIDE})
    types = types or found
    if strange := [each for each in found if each not in types]:
        raise UserError(
            f"dataset {name!r} has entities of type {strange[0]!r}, and types names {', '.join(types)}: name "
            "it too"
        )
    tags = (OUTSIDE, *(prefix + kind for kind in types for prefix in ("B-", "I-")))
    words = tuple(sorted({word for sentence in every for word in sentence.words}))
    word_number, tag_number = ({text: number for number, text in enumerate(known)} for known in (words, tags))

    def columns(sentences: Sequence[Sentence]) -> Examples:
        return Examples(
            {
                "word": _padded([word_number[word] for word in s.words] for s in sentences),
                "tag": _padded([tag_number[tag] for tag in s.tags] for s in sentences),
                "length": torch.tensor([len(s.words) for s in sentences]),
            }
        )

    return Dataset(
        name=name,
        kind="tagged-sentences",
        train=columns(train),
        test=columns(test),
        client=np.array([sentence.client for sentence in train], dtype=np.int64) if natural else None,
        client_names=client_names,
        validation=columns(validation) if validation else None,
        info={"words": words, "tags": tags},
    )


def named_types(given: Sequence[str]) -> Sequence[str]:
    """Return what the option `types` names; UserError where it is no list of names."""
    if not (isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)):
        raise UserError(f"types must be a list of entity types such as ['PER', 'LOC'], got {shown(given)}")
    return [label_name(name) for name in given]


def read(numbers: Tensor, length: Tensor, meanings: Sequence[str]) -> list[list[str]]:
    """Return what the first `length` (N,) of each example's `numbers` (N, T) stand for."""
    rows = zip(numbers.tolist(), length.tolist(), strict=True)
    return [[meanings[number] for number in row[:end]] for row, end in rows]


def _padded(rows: Iterable[list[int]]) -> Tensor:
    """Return (num_rows, longest)."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=NO_WORD)
