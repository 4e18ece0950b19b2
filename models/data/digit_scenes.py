"""Handwritten digits at several sizes on cluttered canvases, with a box around each."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from models.core.config import TaskConfig, require
from models.core.errors import unknown
from models.data.boxes import Corners, Half, boxed_dataset, padded
from models.data.dataset import Dataset, Examples

# Pillow is imported where it is used, so that a worker of another family does without.

Pixels = NDArray[np.uint8]
DIGITS: Mapping[str, Sequence[int]] = {"0-4": range(5), "5-9": range(5, 10)}
"""What a client's digits are called -> which they are."""
LEAST, MOST = 0.2, 0.45
"""Height of a digit, of the canvas's side."""
TRIES = 10
"""Places that are tried for a digit where no other is, before it is left out."""
TRAIN, TEST = 0, 1
"""Streams of random numbers."""


def load_digit_scenes(
    config: TaskConfig,
    size: int = 64,
    clutters: Sequence[str] = ("noise", "lines", "blobs"),
    images_per_client: int = 100,
    test_images: int = 120,
    most_digits: int = 4,
    own: float = 0.8,
    seed: int = 0,
) -> Dataset:
    """Return canvases of `size` x `size` pixels, each with 1 to `most_digits` digits of mnist-5k.

    A client is a kind of clutter and half of the digits, 0 to 4 or 5 to 9: a digit of its canvases is one of
    these with a probability of `own`, else any. Each has `images_per_client`. The `test_images` have all
    clutters and digits alike. Training digits are training rows of mnist-5k, held-out digits are its held-out
    rows. All follows from this `seed`, and is the same for every seed of a run. Raises UserError for an
    unknown clutter.
    """
    for name in clutters:
        if not isinstance(name, str) or name not in CLUTTERS:
            raise unknown("clutter of dataset digit-scenes", str(name), CLUTTERS)
    distinct = len(set(clutters)) == len(clutters) > 0
    require(distinct, "clutters", "different ones, one at least", [*clutters])
    require(32 <= size <= 512, "size", "32 to 512", size)
    for key, given in (("images_per_client", images_per_client), ("test_images", test_images)):
        require(given >= 1, key, ">= 1", given)
    require(1 <= most_digits <= 20, "most_digits", "1 to 20", most_digits)
    require(0 <= own <= 1, "own", "0 to 1", own)
    require(seed >= 0, "seed", ">= 0", seed)
    mnist = mnist_5k()
    train_rows, test_rows = (_by_digit(half) for half in (mnist.train, mnist.test))
    train: list[Scene] = []
    owners: list[str] = []
    for number, (clutter, (digits, chosen)) in enumerate(product(clutters, DIGITS.items())):
        rng = np.random.default_rng((seed, TRAIN, number))
        for _ in range(images_per_client):
            wanted = [_digit(rng, chosen, own) for _ in range(rng.integers(1, most_digits + 1))]
            train.append(_compose(rng, CLUTTERS[clutter](rng, size), wanted, train_rows))
            owners.append(f"{clutter} {digits}")
    rng = np.random.default_rng((seed, TEST))
    test = []
    for number in range(test_images):
        wanted = [_digit(rng, range(10), 1) for _ in range(rng.integers(1, most_digits + 1))]
        canvas = CLUTTERS[clutters[number % len(clutters)]](rng, size)
        test.append(_compose(rng, canvas, wanted, test_rows))
    classes = tuple(map(str, range(10)))
    return boxed_dataset("digit-scenes", [_half(train), _half(test)], classes, owners)


Scene = tuple[Pixels, list[Corners], list[int]]
"""A canvas (H, W), the boxes of its digits, and which they are."""


def mnist_5k() -> Dataset:
    """Return the digits, as they are kept on this machine: to parse them takes three seconds.

    All training rows are among them: which canvases are for validation, the run's own config says.
    """
    from models.data.datasets import load_dataset  # which names this module

    return load_dataset(TaskConfig(dataset="mnist-5k", validation_fraction=0.0))


def _by_digit(rows: Examples) -> list[Pixels]:
    """Return the pictures (n, 28, 28) of each digit."""
    images, labels = rows["image"].numpy()[:, 0], rows["label"].numpy()
    return [images[labels == digit] for digit in range(10)]


def _digit(rng: Generator, chosen: Sequence[int], own: float) -> int:
    return int(rng.choice(np.array(chosen) if rng.random() < own else np.arange(10)))


def _compose(rng: Generator, canvas: Pixels, digits: Sequence[int], rows: Sequence[Pixels]) -> Scene:
    """Lay digits on a canvas where no other is."""
    boxes: list[Corners] = []
    labels: list[int] = []
    side = len(canvas)
    for digit in digits:
        height = int(rng.integers(round(LEAST * side), round(MOST * side) + 1))
        ink = _scaled(rows[digit][rng.integers(len(rows[digit]))], height)
        ink = (ink * rng.uniform(0.6, 1.0)).astype(np.uint8)
        for _ in range(TRIES):
            top, left = (int(rng.integers(side - length + 1)) for length in ink.shape)
            bottom, right = top + ink.shape[0], left + ink.shape[1]
            if not any(_meet((left, top, right, bottom), other) for other in boxes):
                under = canvas[top:bottom, left:right]
                np.maximum(under, ink, out=under)
                boxes.append((left, top, right, bottom))
                labels.append(digit)
                break
    return canvas, boxes, labels


def _meet(one: Corners, other: Corners) -> bool:
    """Return whether two boxes share a pixel."""
    return all(one[axis] < other[axis + 2] and other[axis] < one[axis + 2] for axis in (0, 1))


def _scaled(picture: Pixels, height: int) -> Pixels:
    """Return the part of a picture with ink, so high, and as wide as that makes it."""
    from PIL import Image

    down, across = (np.flatnonzero(picture.any(axis)) for axis in (1, 0))
    ink = picture[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
    width = min(height, max(1, round(height * ink.shape[1] / ink.shape[0])))
    return np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BILINEAR))


def _half(scenes: Sequence[Scene]) -> Half:
    images = np.stack([canvas for canvas, _, _ in scenes])[:, None]
    return Half(images, *padded([boxes for _, boxes, _ in scenes], [labels for _, _, labels in scenes]))


def _noise(rng: Generator, size: int) -> Pixels:
    """Return a grey of its own for every pixel."""
    return rng.integers(0, 100, (size, size), dtype=np.uint8)


def _lines(rng: Generator, size: int) -> Pixels:
    """Return straight lines from border to border, as thick as strokes are."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (size, size))
    for _ in range(6):
        ends = [int(end) for end in rng.integers(0, size, 4)]
        ImageDraw.Draw(picture).line(ends, fill=int(rng.integers(60, 180)), width=int(rng.integers(1, 3)))
    return np.array(picture)


def _blobs(rng: Generator, size: int) -> Pixels:
    """Return ellipses, one over the other."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (size, size))
    for _ in range(8):
        left, top = (int(start) for start in rng.integers(-size // 8, size, 2))
        wide, high = (int(length) for length in rng.integers(size // 10, size // 3, 2))
        ImageDraw.Draw(picture).ellipse((left, top, left + wide, top + high), fill=int(rng.integers(30, 130)))
    return np.array(picture)


CLUTTERS: Mapping[str, Callable[[Generator, int], Pixels]] = {
    "blobs": _blobs,
    "lines": _lines,
    "noise": _noise,
}
"""Kind of clutter -> draws one."""
