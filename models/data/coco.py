"""Boxes in COCO's format: a JSON file of images, annotations and categories beside the pictures.

(Lin et al. 2014, arXiv:1405.0312; https://cocodataset.org/#format-data.)
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.core.config import TaskConfig
from models.core.errors import UserError, shown, unknown
from models.core.paths import leads_out
from models.data.boxes import Box, Canvas, Corners, Scene, boxed_dataset, read_scenes
from models.data.dataset import Dataset
from models.data.held_out import HELD_OUT, TRAIN, class_names, held_out_parts, label_name, named_classes
from models.data.names import LONGEST_CLIENT, is_client
from models.data.pictures import is_picture
from models.data.source import source_path

ANNOTATIONS, IMAGES, PREFIX = "annotations", "images", "instances_"
PARTS = ("images", "annotations", "categories")


def load_coco(
    config: TaskConfig,
    width: int = 320,
    height: int = 320,
    channels: int = 3,
    classes: Sequence[str] = (),
    ignore: Sequence[str] = (),
    client: str = "",
) -> Dataset:
    """Return the pictures of "coco:DIR" with the boxes of their annotations.

    DIR holds JSON files, or a folder `annotations` of them: one, of which a tenth is held out, or one with
    "train" and one with "test" (or another of HELD_OUT) as a word of its name. The pictures of
    `instances_NAME.json` lie in DIR/NAME, DIR/images/NAME, DIR/images or DIR. They are scaled to fit into
    `width` x `height`, of `channels` channels (1 or 3). `classes` names the categories, in the order of their
    numbers; unless given, they are in the order of their names. Those in `ignore` and crowds are regions in
    which finding something is neither right nor wrong. `client` is the key of an image under which its owner
    is named, "" = none is.
    Raises UserError, with the file, for what is not COCO's.
    """
    canvas, path = Canvas(width, height, channels), source_path(config)
    halves = [Annotations.read(file, path) for file in _files(path)]
    left_out = set(named_classes(ignore, "ignore"))
    known = {name for half in halves for name in half.names.values()}
    # With `classes` a misspelt name shows as a category that neither names, and a node may lack some.
    if not classes and (strange := sorted(left_out - known)):
        raise unknown(f"category in ignore of {config.dataset}", strange[0], known)
    found = known - left_out
    names = class_names(path, found, classes, sorted(found))
    if not names:
        raise UserError(
            f"{path} must have a category that ignore does not name, got {', '.join(sorted(known))}"
        )
    scenes = [half.scenes(left_out, client) for half in halves]
    owners = [scene.client for scene in scenes[0]] if client else []
    return boxed_dataset(config.dataset, [read_scenes(half, names, canvas) for half in scenes], names, owners)


def files_of_coco(config: TaskConfig) -> list[Path]:
    """Return the files that such a dataset may be read from: its JSON files, and all pictures below DIR.

    Every process asks at its start, so the JSON is not parsed, which takes longer than to map what is kept.
    """
    path = source_path(config)
    return [*_files(path), *_pictures_below(path)]


def _pictures_below(path: Path) -> list[Path]:
    """Return all pictures below a folder, also behind links, but each folder once."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder, inner, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner.sort()  # which of two links comes first must not depend on the disk
        found += [file for file in (Path(folder, name) for name in names) if is_picture(file)]
    return sorted(found)


def _files(path: Path) -> list[Path]:
    """Return the file of all annotations, or those of the halves."""
    if not path.is_dir():
        raise UserError(f"{path} must be a folder with pictures and their annotations in JSON files")
    folder = path / ANNOTATIONS if (path / ANNOTATIONS).is_dir() else path
    found = sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))
    instances = [file for file in found if file.name.startswith(PREFIX)]
    found = instances or found  # beside captions and key points
    parts = [_part_of(file) for file in found]
    if parts == [HELD_OUT[0]]:
        raise UserError(
            f"{folder} lacks a JSON file with {TRAIN!r} as a word of its name beside {found[0].name}: add "
            "one, or rename the latter, of which a tenth is held out then"
        )
    if len(found) == 1:
        return found
    halves = [TRAIN, *held_out_parts(parts.__contains__)]
    if len(halves) > 1 and all(parts.count(half) == 1 for half in halves):
        return [found[parts.index(half)] for half in halves]
    raise UserError(
        f"{folder} must hold one JSON file, or one with {TRAIN!r} and one with {' or '.join(HELD_OUT)} as a "
        f"word of its name, got {', '.join(file.name for file in found) or 'none'}"
    )


def _part_of(file: Path) -> str:
    """Return which part a file is, the first that is a word of its name: "latest" is no test."""
    words = re.split(r"[\W\d_]+", file.stem)
    return next((part for part in (TRAIN, *HELD_OUT) if part in words), "")


@dataclass(frozen=True)
class Annotations:
    """What a JSON file holds, checked."""

    file: Path
    folders: Sequence[Path]
    """Where its pictures may lie."""
    images: Mapping[int, Mapping[str, Any]]
    """Id -> entry."""
    names: Mapping[int, str]
    """Id of a category -> its name."""
    annotations: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, file: Path, path: Path) -> "Annotations":
        """Return what a file holds; UserError for what is not COCO's."""
        try:
            held = json.loads(file.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:  # also of 5,000 digits, or 5,000 brackets
            raise UserError(f"{file} is no JSON file that can be read ({error})") from error
        for part in PARTS:
            entries = held.get(part) if isinstance(held, dict) else None
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise UserError(f"{file} must hold a list {part!r} of objects, as COCO's files do")
        names: dict[int, str] = {}
        for entry in held["categories"]:
            text = entry.get("name")
            if not isinstance(text, str) or not text.strip() or not text.isprintable():
                raise UserError(f"{file}: the name of a category must be printable, got {shown(text)}")
            names[_id(file, "categories", "id", entry)] = label_name(text.strip())
        images = {_id(file, "images", "id", entry): entry for entry in held["images"]}
        for part, key, given in (
            ("categories", "id", [entry["id"] for entry in held["categories"]]),
            ("categories", "name", [label_name(entry["name"].strip()) for entry in held["categories"]]),
            ("images", "id", [entry["id"] for entry in held["images"]]),
            ("images", "file_name", [entry.get("file_name") for entry in held["images"]]),
        ):
            if not given:
                raise UserError(f"{file}: {part} must be one at least, got none")
            if (twice := _first_twice(given)) is not None:
                raise UserError(f"{file}: {part} must differ in {key}, got {shown(twice)} twice")
        stem = file.stem.removeprefix(PREFIX)
        folders = [path / stem, path / IMAGES / stem, path / IMAGES, path]
        return cls(file, folders, images, names, held["annotations"])

    def scenes(self, ignored: set[str], client: str) -> list[Scene]:
        """Return the pictures with their boxes, in the order of their ids."""
        boxes: dict[int, list[Box]] = {number: [] for number in sorted(self.images)}
        for entry in self.annotations:
            image = _id(self.file, "annotations", "image_id", entry)
            category = _id(self.file, "annotations", "category_id", entry)
            for key, number, known in (
                ("image_id", image, self.images),
                ("category_id", category, self.names),
            ):
                if number not in known:
                    raise UserError(
                        f"{self.file}: {key} of annotation {shown(entry.get('id'))} is not there: "
                        f"{shown(number)}"
                    )
            name = self.names[category]
            aside = name in ignored or entry.get("iscrowd") == 1
            boxes[image].append(Box(self._corners(entry), None if aside else name))
        return [
            Scene(
                self._picture(self.images[number]),
                of_image,
                self._owner(self.images[number], client),
                (self.images[number].get("width"), self.images[number].get("height")),
            )
            for number, of_image in boxes.items()
        ]

    def _corners(self, entry: Mapping[str, Any]) -> Corners:
        given = entry.get("bbox")
        if isinstance(given, list) and len(given) == 4 and all(map(_is_finite, given)):
            left, top, wide, high = map(float, given)
            if wide >= 0 and high >= 0:
                return left, top, left + wide, top + high
        raise UserError(
            f"{self.file}: bbox of annotation {shown(entry.get('id'))} must be left, top, width and height, "
            f"finite numbers, the latter two 0 or more, got {shown(given)}"
        )

    def _picture(self, image: Mapping[str, Any]) -> Path:
        name = image.get("file_name")
        if not isinstance(name, str) or leads_out(name):
            raise UserError(
                f"{self.file}: file_name must be a path below its folder, without '..', got {shown(name)}"
            )
        found = [folder / name for folder in self.folders if is_picture(folder / name)]
        if not found:
            places = ", ".join(str(folder) for folder in self.folders)
            raise UserError(f"{self.file}: {name!r} is no picture in any of {places}")
        return found[0]

    def _owner(self, image: Mapping[str, Any], client: str) -> str:
        if not client:
            return ""
        given = image.get(client)
        name = str(given).strip() if isinstance(given, str | int | float) else ""
        if not is_client(name):
            raise UserError(
                f"{self.file}: {client} of image {shown(image['id'])} must be the name of a client, of at "
                f"most {LONGEST_CLIENT} printable characters, got {shown(given)}"
            )
        return name


def _first_twice(given: Sequence[object]) -> str | int | None:
    """Return the first text or number that is there twice; what is neither gets a line of its own."""
    times = Counter(each for each in given if isinstance(each, str | int))
    return next((each for each, number in times.items() if number > 1), None)


def _is_finite(value: object) -> bool:
    """Return whether a value is a number that a float can hold; `true` is none."""
    try:
        return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
    except OverflowError:
        return False


def _id(file: Path, part: str, key: str, entry: Mapping[str, Any]) -> int:
    number = entry.get(key)
    if type(number) is not int:
        raise UserError(f"{file}: {key} in {part} must be a whole number, got {shown(number)}")
    return number
