"""Exceptions that are awkward to report, and tasks whose clients raise them; "awkward:Awkward"."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from faulty import FaultyCnn
from torch import nn

from models.data.dataset import Dataset, Examples
from models.task import Batch


class SpeechlessError(Exception):
    """Cannot even be turned into text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


KINDS: Mapping[str, Callable[[], BaseException]] = {
    "speechless": SpeechlessError,
    "half a character": lambda: ValueError("bad \udcff byte"),
    "endless": lambda: ValueError("x" * 3_000_000),
    "a cursor": lambda: ValueError("look \x1b[2J\x00 here"),
    "exit": lambda: SystemExit(0),
}


class Awkward(FaultyCnn):
    """Raises the awkward exception where Faulty raises its plain one."""

    def __init__(self, dataset: Dataset, kind: str, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.kind = kind

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        if generator.initial_seed() == self.raise_at:
            raise KINDS[self.kind]()
        yield from super().batches(model, data, generator, batch_size)
