"""Text in windows of bytes, one document a natural client: Python's own topics, and any folder of files.

Bytes of UTF-8 need no vocabulary on which clients would first have to agree, and know every script.
"""

from codecs import BOM_UTF8
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.source import source_path
from models.data.table import check_encoding, other_encoding

WINDOW = 128
"""Bytes that are predicted in an example."""
TEST_FRACTION = 0.1
EMPTY = 0
"""The byte before a document's first, and in the places behind its last; text holds no such byte."""


def load_pydoc(config: TaskConfig) -> Dataset:
    """Return the topics of Python's `help()`: 79 documents of 465,000 characters in all in Python 3.11."""
    from pydoc_data.topics import topics

    return windows_of("pydoc", {name: topics[name].encode() for name in sorted(topics)})


def load_text(config: TaskConfig, encoding: str = "utf-8") -> Dataset:
    """Return the files of "text:DIR", in the order of their names; those in folders below are not read.

    They are read in an `encoding`, and become UTF-8. Raises UserError for a folder without files, and for a
    file that is empty or not in that encoding.
    """
    encoding = check_encoding(encoding)
    folder = source_path(config)
    if not folder.is_dir():
        raise UserError(f"dataset {config.dataset!r} must name a folder of text files, got {folder}")
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise UserError(f"{folder} holds no text files: put one a client there")
    return windows_of(config.dataset, {file.name: _utf8(file, encoding) for file in files})


def _utf8(file: Path, encoding: str) -> bytes:
    """Return a file's text in UTF-8, without the mark of the order of bytes."""
    content = file.read_bytes()
    if encoding == "utf-8-sig":
        return content.removeprefix(BOM_UTF8)
    try:
        return content.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeError as error:
        raise other_encoding(str(file), encoding, error) from error


def windows_of(
    name: str,
    documents: dict[str, bytes],
    held_out: dict[str, bytes] | None = None,
    validation: dict[str, bytes] | None = None,
) -> Dataset:
    """Cut documents into examples of `text` (N, 1 + WINDOW), uint8, whose last tenth is held out.

    Unless some are `held_out`: then all of the others is trained on, but for what is for `validation`. Each
    example's first byte is the one
    before the example, EMPTY where there is none; the others are predicted, each in one example alone.
    """
    for document, content in (*documents.items(), *(held_out or {}).items(), *(validation or {}).items()):
        _check(name, document, content)
    if held_out is None:
        halves = [_cut(content) for content in documents.values()]
        parts = [[half[side] for half in halves] for side in (0, 1)]
    else:
        given = (documents, held_out, *([validation] if validation else []))
        parts = [[_rows(_whole(each)) for each in half.values()] for half in given]
    train, test, *chosen_by = (Examples({"text": torch.cat(part)}) for part in parts)
    rows = [len(part) for part in parts[0]]
    client = np.repeat(np.arange(len(documents)), rows)
    return Dataset(
        name,
        "text",
        train,
        test,
        client=client,
        client_names=tuple(documents),
        ordered=True,
        validation=chosen_by[0] if chosen_by else None,
    )


def read(text: Tensor) -> list[str]:
    """Return the text of each example (N, 1 + WINDOW), without a character that the example cuts in two."""
    windows = text[:, 1:].numpy()
    return [window.tobytes().rstrip(bytes([EMPTY])).decode(errors="ignore") for window in windows]


def _check(name: str, document: str, content: bytes) -> None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"document {document!r} of dataset {name!r} is no UTF-8 text: {error}; name its encoding in "
            "dataset-options, such as encoding = 'latin-1'"
        ) from error
    if not content or EMPTY in content:
        fault = "holds a zero byte" if content else "is empty"
        raise UserError(f"document {document!r} of dataset {name!r} {fault}: leave it out")


def _cut(content: bytes) -> tuple[Tensor, Tensor]:
    """Return the training and the held-out examples of one document."""
    text = _whole(content)
    first_test = len(text) - round(TEST_FRACTION * len(content))
    return _rows(text[:first_test]), _rows(text[first_test - 1 :])


def _whole(content: bytes) -> Tensor:
    """Return a document after EMPTY: (1 + n,)."""
    return torch.frombuffer(bytearray([EMPTY]) + content, dtype=torch.uint8)


def _rows(text: Tensor) -> Tensor:
    """(1 + n,) -> (ceil(n / WINDOW), 1 + WINDOW); the last example is filled up with EMPTY."""
    n = len(text) - 1
    padded = torch.nn.functional.pad(text, (0, -n % WINDOW), value=EMPTY)
    if not n:
        return text.new_empty(0, 1 + WINDOW)
    return padded.unfold(0, 1 + WINDOW, WINDOW).contiguous()
