"""Sentences whose words carry entity tags, and CoNLL column files of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.source import source_path

OUTSIDE = "O"
NO_WORD = -1
"""Padding after the last word of a sentence, in both columns."""


class Sentence(NamedTuple):
    """Words, and a BIO tag for each: "O", or "B-" or "I-" and an entity type."""

    words: Sequence[str]
    tags: Sequence[str]
    client: int = 0


def load_conll(config: TaskConfig) -> Dataset:
    """Read `conll:DIR`: `train.txt`, and as held-out examples `test.txt`, or `valid.txt` where there is none.

    A line holds a word and, after other columns, its BIO tag; an empty line ends a sentence. Where the files
    mark documents with -DOCSTART-, as CoNLL-2003 does, each document with a sentence is a natural client.
    Raises UserError for files that are missing or hold something else.
    """
    folder = source_path(config)
    held_out = folder / "test.txt" if (folder / "test.txt").is_file() else folder / "valid.txt"
    train = read_conll(folder / "train.txt")
    return dataset_of(config.dataset, train, read_conll(held_out), natural=len({s.client for s in train}) > 1)


def read_conll(path: Path) -> list[Sentence]:
    """Read one column file; a sentence's client is the number of its document, or 0 without documents."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): a conll folder holds train.txt, and test.txt or valid.txt, "
            "in UTF-8"
        ) from error
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    document, documents = 0, -1
    starts = True
    for number, line in enumerate([*lines, ""], start=1):
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            _check_line(path, number, columns)
            words.append(columns[0])
            tags.append(columns[-1])
            continue
        if words:
            # A document is numbered by its first sentence, so that no natural client is empty.
            documents += starts
            document, starts = documents, False
            sentences.append(Sentence(words, tags, document))
            words, tags = [], []
        starts |= bool(columns)
    if not sentences:
        raise UserError(f"{path} holds no sentence: a line is a word and its tag, such as 'Paris B-LOC'")
    return sentences


def dataset_of(
    name: str, train: Sequence[Sentence], test: Sequence[Sentence], *, natural: bool = False
) -> Dataset:
    """Turn sentences into columns: `word` (N, T) and `tag` (N, T), padded with NO_WORD, and `length` (N,).

    `info["words"]` and `info["tags"]` say what the numbers stand for.
    """
    types = sorted({tag[2:] for sentence in (*train, *test) for tag in sentence.tags if tag != OUTSIDE})
    tags = (OUTSIDE, *(prefix + kind for kind in types for prefix in ("B-", "I-")))
    words = tuple(sorted({word for sentence in (*train, *test) for word in sentence.words}))
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
        info={"words": words, "tags": tags},
    )


def read(numbers: Tensor, length: Tensor, meanings: Sequence[str]) -> list[list[str]]:
    """Return what the first `length` (N,) of each example's `numbers` (N, T) stand for."""
    rows = zip(numbers.tolist(), length.tolist(), strict=True)
    return [[meanings[number] for number in row[:end]] for row, end in rows]


def _padded(rows: Iterable[list[int]]) -> Tensor:
    """Return (num_rows, longest)."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=NO_WORD)


def _check_line(path: Path, number: int, columns: Sequence[str]) -> None:
    tag = columns[-1]
    if len(columns) < 2 or not (tag == OUTSIDE or (tag[:2] in ("B-", "I-") and len(tag) > 2)):
        raise UserError(
            f"{path}, line {number}: expected a word and a BIO tag (O, B-TYPE or I-TYPE), "
            f"got {' '.join(columns)!r}"
        )
