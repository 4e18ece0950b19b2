"""Pictures with boxes around what they show: scaled, laid into columns, and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.core.config import require
from models.core.errors import UserError, shown
from models.data.dataset import Dataset, Examples, Indices
from models.data.held_out import hold_out
from models.data.large import take_rows, zeros
from models.data.pictures import MODES, opaque, read_picture

if TYPE_CHECKING:
    from PIL.Image import Image

KIND = "boxed-images"
BEHIND, IGNORED = -1, -2
"""In the place of a class: behind an image's last box, and of a region that counts neither way."""
LARGEST_SIDE = 4096
Corners = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


class Box(NamedTuple):
    """Where something lies in a picture, and what it is; None = it counts neither way."""

    corners: Corners
    label: str | None


class Scene(NamedTuple):
    """A file of a picture, what is in it, and whose it is; "" = nobody's."""

    path: Path
    boxes: Sequence[Box]
    client: str = ""
    size: tuple[object, object] = (None, None)
    """Its width and height as its annotations say them; None = they do not."""


class Laid(NamedTuple):
    """A picture on a canvas."""

    pixels: NDArray[np.uint8]
    """(C, H, W)"""
    before: tuple[int, int]
    """Its width and height in its file."""
    now: tuple[int, int]
    """Its width and height on the canvas."""

    def cut(self, corners: Corners) -> Corners | None:
        """Return where a box of the file lies on the canvas; None where nothing of it is in the picture."""
        inside = np.minimum(np.maximum(corners, 0), (*self.before, *self.before))
        scaled = inside * np.divide((*self.now, *self.now), (*self.before, *self.before))
        left, top, right, bottom = scaled.astype(np.float32).tolist()
        return (left, top, right, bottom) if left < right and top < bottom else None


@dataclass(frozen=True)
class Canvas:
    """What pictures of any size are laid on: scaled until they fit, at the upper left, black behind.

    Raises UserError for sizes that no task could take.
    """

    width: int
    height: int
    channels: int
    """1 = grey, 3 = red, green and blue."""

    def __post_init__(self) -> None:
        require(self.channels in MODES, "channels", "1 or 3", self.channels)
        for name in ("width", "height"):
            given = getattr(self, name)
            require(1 <= given <= LARGEST_SIDE, name, f"1 to {LARGEST_SIDE}", given)

    def lay(self, picture: "Image") -> Laid:
        """Return a picture on the canvas; it is not turned, as its boxes would have to be turned with it."""
        from PIL import Image

        width, height = picture.size
        fit = min(self.width / width, self.height / height)
        now = max(1, round(fit * width)), max(1, round(fit * height))
        scaled = opaque(picture).convert(MODES[self.channels]).resize(now, Image.Resampling.BILINEAR)
        pixels = np.asarray(scaled, dtype=np.uint8).reshape(now[1], now[0], self.channels)
        laid = np.zeros((self.channels, self.height, self.width), np.uint8)
        laid[:, : now[1], : now[0]] = pixels.transpose(2, 0, 1)
        return Laid(laid, (width, height), now)


class Half(NamedTuple):
    """Pictures with boxes, as columns."""

    images: NDArray[np.uint8]
    """(N, C, H, W)"""
    boxes: NDArray[np.float32]
    """(N, M, 4)"""
    labels: NDArray[np.int64]
    """(N, M)"""
    skipped: int = 0
    """Boxes that were left out."""

    def take(self, rows: NDArray[np.int64]) -> "Half":
        """Return some of the pictures."""
        return Half(take_rows(self.images, rows), self.boxes[rows], self.labels[rows], self.skipped)

    @property
    def examples(self) -> Examples:
        """The columns as a dataset has them."""
        columns = {"image": self.images, "box": self.boxes, "class": self.labels}
        return Examples({name: torch.from_numpy(column) for name, column in columns.items()})


def read_scenes(scenes: Sequence[Scene], classes: Sequence[str], canvas: Canvas) -> Half:
    """Return the pictures of these files with their boxes, without those of which nothing is in one."""
    number: Mapping[str | None, int] = {**{name: n for n, name in enumerate(classes)}, None: IGNORED}
    images = zeros((len(scenes), canvas.channels, canvas.height, canvas.width), np.uint8)
    boxes: list[list[Corners]] = []
    labels: list[list[int]] = []
    for row, scene in enumerate(scenes):
        laid = read_picture(scene.path, canvas.lay)
        if any(said not in (None, found) for said, found in zip(scene.size, laid.before, strict=True)):
            # Its boxes are of another picture, or of another size of this one.
            width, height = scene.size
            raise UserError(
                f"{scene.path} has width {laid.before[0]} and height {laid.before[1]}, and its annotations "
                f"say {shown(width)} and {shown(height)}: mend them, or leave both out"
            )
        images[row] = laid.pixels
        cut = [(laid.cut(box.corners), number[box.label]) for box in scene.boxes]
        boxes.append([corners for corners, _ in cut if corners])
        labels.append([label for corners, label in cut if corners])
    skipped = sum(len(scene.boxes) for scene in scenes) - sum(map(len, boxes))
    return Half(images, *padded(boxes, labels), skipped)


def padded(
    boxes: Sequence[Sequence[Corners]], labels: Sequence[Sequence[int]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the boxes of each picture as (N, M, 4), and their labels as (N, M), for the largest number M."""
    most = max(1, *map(len, boxes)) if boxes else 1
    corners = np.zeros((len(boxes), most, 4), np.float32)
    numbers = np.full((len(boxes), most), BEHIND, np.int64)
    for row, (each, of_each) in enumerate(zip(boxes, labels, strict=True)):
        corners[row, : len(each)] = np.array(each, np.float32).reshape(-1, 4)
        numbers[row, : len(each)] = of_each
    return corners, numbers


def boxed_dataset(
    name: str, halves: Sequence[Half], classes: Sequence[str], client: Sequence[str] = ()
) -> Dataset:
    """Return training and held-out pictures; of one half alone, about a tenth is held out.

    A third half is for validation. `client` names the owner of each picture of the first half, or is () where
    none has one.
    """
    rows = np.arange(len(halves[0].labels))
    skipped = sum(half.skipped for half in halves)
    if len(halves) == 1:
        rows, held_out = hold_out(picture.tobytes() for picture in halves[0].images)
        halves = [halves[0].take(each) for each in (rows, held_out)]
    train, test, *validation = (half.examples for half in halves)
    owner: Indices | None = None
    names: list[str] = []
    if client:
        owners = [client[row] for row in rows.tolist()]
        names = sorted(set(owners))
        owner = np.array([names.index(each) for each in owners], dtype=np.int64)
    return Dataset(
        name,
        KIND,
        train,
        test,
        classes=tuple(classes),
        client=owner,
        client_names=tuple(names),
        validation=validation[0] if validation else None,
        info={"max_value": 255, "skipped": skipped},
    )


def check_boxes(owner: str, examples: Examples) -> None:
    """Raise UserError for a box that ends before it begins, or leaves its image."""
    height, width = examples["image"].shape[-2:]
    boxes: Tensor = examples["box"]
    there = examples["class"] != BEHIND
    fits = (boxes[..., :2] < boxes[..., 2:]).all(-1) & (boxes[..., 2] <= width) & (boxes[..., 3] <= height)
    if (wrong := there & ~fits).any():
        row, place = wrong.nonzero()[0].tolist()
        raise UserError(
            f"{owner} column 'box' must have left < right <= {width} and top < bottom <= {height}, got "
            f"{boxes[row, place].tolist()} in example {row}"
        )
