"""What a task tells of why a model says what it says: a number for each part of an example."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Form = Literal["image", "words", "features"]
IMAGE: Form = "image"
WORDS: Form = "words"
FEATURES: Form = "features"


@dataclass(frozen=True)
class Explained:
    """How much each part of one example counts for one answer of a model."""

    values: Tensor
    """A number for each part: (P,), or (H, W) for the pixels of an image; float64, on the CPU."""
    answer: str
    """The answer that is explained, such as a class, in words."""
    said: str
    """What the model itself says of the example."""
    truth: str
    score: float
    """What the model gives for that answer."""
    start: float = math.nan
    """What it gives for the baseline, an example without content; nan where the method knows none."""
    asked: int = 0
    """The number of the answer, by which another model is asked about the same."""
    parts: tuple[str, ...] = ()
    """What the parts (P,) are called, such as words; () for an image."""
    image: Tensor | None = None
    """The image (C, H, W) in [0, 1]; None for anything else."""

    @property
    def gap(self) -> float:
        """How far the values are from adding up to `score` less `start`; nan without `start`."""
        return self.score - self.start - float(self.values.sum())


@dataclass(frozen=True)
class Explanation:
    """What a method tells of some examples."""

    form: Form
    """How a person looks at it: an image, words in their order, or features that all examples have."""
    examples: Sequence[Explained]
    signed: bool = True
    """Whether values below zero speak against the answer; otherwise they only tell how much a part counts."""
