"""KITTI's object detection: pictures in image_2, and a text file of objects for each in label_2.

(Geiger et al. 2012, "Are we ready for Autonomous Driving?"; the columns are those of its development kit.)
"""

import math
from collections.abc import Sequence
from pathlib import Path

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.boxes import Box, Canvas, Scene, boxed_dataset, read_scenes
from models.data.dataset import Dataset
from models.data.held_out import TRAIN, folders_of_parts, named_classes
from models.data.pictures import is_picture
from models.data.source import source_path

IMAGES, LABELS = "image_2", "label_2"
TRAINING = "training"
TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
DONT_CARE = "DontCare"
"""The type of a region in which nobody has looked for objects."""
COLUMNS = ("type", "truncated", "occluded", "alpha", "left", "top", "right", "bottom")
"""Of the 15 columns, those up to the box; behind it are size, place and turn in space."""
NUM_COLUMNS = 15


def load_kitti(
    config: TaskConfig,
    width: int = 620,
    height: int = 188,
    channels: int = 3,
    classes: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Dataset:
    """Return the pictures of "kitti:DIR" with the boxes of their objects.

    DIR holds `image_2` and `label_2`, or a folder `training` with both, or folders of clients with both; or
    all that below `train` and `test` (or another of HELD_OUT). Pictures are scaled to fit into `width` x
    `height`, of `channels` channels (1 or 3). `classes` names the types of objects, in the order of their
    numbers; unless given, they are KITTI's eight. Those in `ignore` and DontCare are regions in which finding
    something is neither right nor wrong. Without a half of its own a tenth is held out. Raises UserError,
    with file and line, for what is not KITTI's.
    """
    canvas, path = Canvas(width, height, channels), source_path(config)
    left_out = {DONT_CARE, *named_classes(ignore, "ignore")}
    names = named_classes(classes) or tuple(name for name in TYPES if name not in left_out)
    if twice := sorted(left_out.intersection(names)):
        raise UserError(f"classes must be other ones than ignore and {DONT_CARE}, got {twice[0]!r} in both")
    if not names:
        raise UserError(f"ignore must leave a class of {', '.join(TYPES)}, got all of them")
    halves = [_scenes(half, names, left_out) for half in _halves(path)]
    owners = [scene.client for scene in halves[0]]
    read = [read_scenes(half, names, canvas) for half in halves]
    return boxed_dataset(config.dataset, read, names, owners if any(owners) else ())


def files_of_kitti(config: TaskConfig) -> list[Path]:
    """Return the files that such a dataset is read from."""
    folders = [folder for half in _halves(source_path(config)) for folder in _clients(half).values()]
    pictures = [picture for folder in folders for picture in _pictures(folder)]
    return [file for picture in pictures for file in (picture, _label_of(picture)) if file.is_file()]


def _halves(path: Path) -> list[Path]:
    """Return the folder of all pictures, or those of the halves."""
    if not path.is_dir():
        raise UserError(f"{path} must be a folder with {IMAGES} and {LABELS}")
    if not (path / TRAIN).is_dir() and (path / TRAINING / IMAGES).is_dir():
        return [path / TRAINING]
    return folders_of_parts(path)


def _clients(half: Path) -> dict[str, Path]:
    """Return client -> the folder that holds its pictures and labels; "" is nobody's."""
    if (half / IMAGES).is_dir():
        return {"": half}
    clients = {each.name: each for each in sorted(half.iterdir()) if (each / IMAGES).is_dir()}
    if not clients:
        raise UserError(f"{half} must hold folders {IMAGES} and {LABELS}, or folders of clients with both")
    return clients


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in (folder / IMAGES).iterdir() if is_picture(path))
    if not found:
        raise UserError(f"{folder / IMAGES} holds no pictures: put some there, such as 000000.png")
    return found


def _label_of(picture: Path) -> Path:
    return picture.parents[1] / LABELS / f"{picture.stem}.txt"


def _scenes(half: Path, classes: Sequence[str], ignored: set[str]) -> list[Scene]:
    return [
        Scene(picture, _boxes(picture, classes, ignored), client)
        for client, folder in _clients(half).items()
        for picture in _pictures(folder)
    ]


def _boxes(picture: Path, classes: Sequence[str], ignored: set[str]) -> list[Box]:
    """Return the objects of a picture."""
    file = _label_of(picture)
    if not file.is_file():
        raise UserError(f"{file} is missing: {IMAGES}/{picture.name} needs it, empty where nothing is seen")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeError as error:
        raise UserError(f"{file} is not in UTF-8 ({error}): save it as UTF-8") from error
    return [
        _box(f"{file}, line {number}", line.split(), classes, ignored)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _box(place: str, cells: Sequence[str], classes: Sequence[str], ignored: set[str]) -> Box:
    if len(cells) not in (NUM_COLUMNS, NUM_COLUMNS + 1):  # a detector's own files have a score behind
        raise UserError(
            f"{place}: an object has {NUM_COLUMNS} columns, got {len(cells)}: {' '.join(cells)!r}"
        )
    name = cells[0]
    if name not in ignored and name not in classes:
        allowed = ", ".join((*classes, *sorted(ignored)))
        raise UserError(f"{place}: type must be one of {allowed}, got {name!r}: name it in classes or ignore")
    numbers = dict(zip(COLUMNS[4:], map(_number, cells[4:8]), strict=True))
    for column, value in numbers.items():
        if not math.isfinite(value):
            raise UserError(f"{place}: {column} must be a number, got {cells[COLUMNS.index(column)]!r}")
    left, top, right, bottom = numbers.values()
    if left > right or top > bottom:
        raise UserError(
            f"{place}: a box must end behind its beginning, got left {left:g}, top {top:g}, right {right:g}, "
            f"bottom {bottom:g}"
        )
    return Box((left, top, right, bottom), None if name in ignored else name)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
