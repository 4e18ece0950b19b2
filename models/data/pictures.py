"""Pictures of one's own, from whatever they come: scaled, and laid into a column one by one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from models.core.config import require
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples, Indices
from models.data.held_out import hold_out
from models.data.large import take_rows, zeros

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow is imported where it is used, so that a worker of another family does without.

T = TypeVar("T")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
"""Of files that are taken for pictures, in any case."""
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""What such files may hold. Pillow would read others by programs of their own, as EPS by Ghostscript."""
MODES = {1: "L", 3: "RGB"}
"""Channels -> what Pillow calls such pictures."""
Half = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pictures (N, C, H, W) and their labels (N,)."""


@dataclass(frozen=True)
class Shape:
    """What pictures of any size are made to; raises UserError for what no task could take."""

    size: int = 32
    """Pixels of each side."""
    channels: int = 3
    """1 = grey, 3 = red, green and blue."""

    def __post_init__(self) -> None:
        require(self.channels in MODES, "channels", "1 or 3", self.channels)
        require(1 <= self.size <= 1024, "size", "1 to 1024", self.size)

    def pixels(self, picture: "Image") -> NDArray[np.uint8]:
        """Return a picture as (C, H, W): as it is turned for the eye, on white where one sees through it.

        Raises ValueError for pixels of 32 bits, of which nobody has said what white is.
        """
        from PIL import Image, ImageOps

        seen = opaque(ImageOps.exif_transpose(picture))
        scaled = seen.convert(MODES[self.channels]).resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(scaled, dtype=np.uint8)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def column(self, num: int, pictures: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return so many pictures, each (C, H, W), as (N, C, H, W)."""
        column = zeros((num, self.channels, self.size, self.size), np.uint8)
        for row, pixels in enumerate(pictures):
            column[row] = pixels
        return column


def is_picture(path: Path) -> bool:
    """Return whether a file is taken for a picture."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def read_picture(path: Path, made: "Callable[[Image], T]") -> T:
    """Return what is made of a file's picture; UserError where it cannot be read, or not be made that."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as opened:
            return made(opened)
    except (OSError, ValueError, SyntaxError, NotImplementedError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is no picture that can be read ({' '.join(str(error).split())})") from error


def opaque(picture: "Image") -> "Image":
    """Return a picture in 8 bits, on white where one sees through it; ValueError for pixels of 32 bits."""
    from PIL import Image

    seen = _in_8_bits(picture)
    if not seen.has_transparency_data:
        return seen
    seen = seen.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")


def _in_8_bits(picture: "Image") -> "Image":
    """Return a picture of 16 bits of grey in 8; ValueError for one of 32."""
    from PIL import Image

    if picture.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are numbers of 32 bits, mode {picture.mode}: save it with 8 or 16 bits of grey"
        )
    if not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))


def picture_dataset(
    name: str,
    halves: Sequence[Half],
    classes: tuple[str, ...],
    client: Sequence[str] = (),
) -> Dataset:
    """Return training and held-out pictures; of one half alone, about a tenth is held out.

    A third half is for validation. `client` names the owner of each picture of the first half, or is () where
    none has one.
    """
    train_rows = np.arange(len(halves[0][1]))
    if len(halves) == 1:
        images, labels = halves[0]
        train_rows, test_rows = hold_out(picture.tobytes() for picture in images)
        halves = [(take_rows(images, rows), labels[rows]) for rows in (train_rows, test_rows)]
    train, test, *validation = (
        Examples({"image": torch.from_numpy(images), "label": torch.from_numpy(labels)})
        for images, labels in halves
    )
    owner: Indices | None = None
    names: Sequence[str] = ()
    if client:
        owners = [client[row] for row in train_rows.tolist()]
        names = sorted(set(owners))
        number = {name: place for place, name in enumerate(names)}
        owner = np.array([number[each] for each in owners], dtype=np.int64)
    return Dataset(
        name,
        "images",
        train,
        test,
        label="label",
        classes=classes,
        client=owner,
        client_names=tuple(names),
        validation=validation[0] if validation else None,
        info={"max_value": 255},
    )
