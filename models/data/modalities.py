"""Examples of several modalities, pictures and texts, each of which an example may lack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data.dataset import Dataset, Examples, Indices

KIND = "multimodal"
IMAGE, TEXT = MODALITIES = ("image", "text")
"""What an example may have; each is a column."""
HAS = "has_"
"""Prefix of the column that says which examples have a modality."""
FILL = 0
"""In the places behind a text's last byte, and of a text that there is not; text holds no such byte."""


@dataclass(frozen=True)
class Half:
    """Training or held-out examples; a row that lacks a modality has zeros there."""

    image: NDArray[np.uint8]
    """(N, C, H, W)."""
    text: NDArray[np.uint8]
    """UTF-8 (N, L), with FILL behind."""
    has: Mapping[str, NDArray[np.bool_]]
    """Modality -> whether each row has it (N,)."""
    label: NDArray[np.int64]
    """Classes (N,)."""

    def columns(self) -> Examples:
        """Return the columns of a dataset of this kind."""
        has = {HAS + name: torch.from_numpy(self.has[name].astype(np.uint8)) for name in MODALITIES}
        image, text, label = (torch.from_numpy(each) for each in (self.image, self.text, self.label))
        return Examples({"image": image, "text": text, **has, "label": label})


def dataset_of(
    name: str,
    halves: Sequence[Half],
    classes: tuple[str, ...],
    client: Indices | None = None,
    client_names: tuple[str, ...] = (),
) -> Dataset:
    """Return training and held-out examples as a dataset; a third half is for validation."""
    train, test, *validation = (half.columns() for half in halves)
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
        info={"max_value": 255},
    )


def text_column(texts: Sequence[bytes], width: int) -> NDArray[np.uint8]:
    """Return texts (N,) as a column (N, width)."""
    column = np.full((len(texts), width), FILL, np.uint8)
    for row, content in enumerate(texts):
        column[row, : len(content)] = np.frombuffer(content, np.uint8)
    return column


def read_texts(text: Tensor) -> list[str]:
    """Return the texts of a column (N, L)."""
    return [row.tobytes().rstrip(bytes([FILL])).decode(errors="replace") for row in text.numpy()]
