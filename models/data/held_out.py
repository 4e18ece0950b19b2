"""What data of one's own leaves open: which rows are held out, and which number a class has."""

import hashlib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.core.errors import UserError, shown

TEST_FRACTION = 0.1
"""Part of the rows that is held out."""
TRAIN = "train"
HELD_OUT = ("test", "val", "valid", "validation", "dev")
"""What the held-out half beside "train" may be called; one of the others beside "test" is for validation."""

LIKE_PARTS = {TRAIN, *HELD_OUT, "training", "testing", "evaluation"}
"""What other tools call parts; in any case, as Windows does not tell Test from test."""

Rows = NDArray[np.int64]


def held_out_parts(is_there: Callable[[str], bool]) -> list[str]:
    """Return what is held out of the parts that data comes in: for the test, then for validation if any.

    Raises UserError for parts of which nobody could say what they are for.
    """
    names = [name for name in HELD_OUT if is_there(name)]
    if len(names) > (2 if names[:1] == [HELD_OUT[0]] else 1):
        raise UserError(
            f"what is held out must be one part, or {HELD_OUT[0]} and one more for validation, got "
            f"{' and '.join(names)}: rename or remove the others"
        )
    return names


def held_out_files(path: Path, names: Collection[str]) -> list[str]:
    """Return which files of a folder are held out, by the names of all; [] where `path` is no folder.

    Raises UserError where there is nothing beside them to train on.
    """
    found = held_out_parts(names.__contains__) if path.is_dir() else []
    if found and set(names) <= set(HELD_OUT):
        raise UserError(f"{path} must hold a file to train on beside {' and '.join(found)}: add one")
    return found


def files_of_parts(path: Path, ending: str) -> list[Path]:
    """Return a folder's files: of training, held-out and then validation rows; [] where there is none.

    Raises UserError for rows to train on without others to hold out, and the other way round.
    """
    train = path / f"{TRAIN}{ending}"
    found = held_out_parts(lambda name: (path / f"{name}{ending}").is_file())
    if train.is_file() and not found:
        raise UserError(
            f"{path} must hold {' or '.join(f'{name}{ending}' for name in HELD_OUT)} beside {train.name}: "
            f"add one, or name {train}, of which a tenth is held out"
        )
    if found and not train.is_file():
        raise UserError(f"{path} must hold {train.name} beside {found[0]}{ending}, which is held out: add it")
    return [train, *(path / f"{name}{ending}" for name in found)] if found else []


def folders_of_parts(
    path: Path, is_class: Callable[[Path], bool] = lambda _: False, what: str = "pictures"
) -> list[Path]:
    """Return the folders of training, held-out and then validation examples, or `path` alone.

    Raises UserError for a folder to train on with none beside it, for one that is held out with none beside
    it, and for parts by another name, unless it `is_class` of that name: else all that lie there would be
    clients.
    """
    train = path / TRAIN
    found = held_out_parts(lambda name: (path / name).is_dir())
    if train.is_dir() and found:
        return [train, *(path / name for name in found)]
    parts = [each for each in sorted(path.iterdir()) if each.name.casefold() in LIKE_PARTS and each.is_dir()]
    for part in parts:
        if is_class(part):
            continue
        if part == train:
            raise UserError(
                f"{path} must hold a folder {' or '.join(HELD_OUT)} beside {TRAIN}, with {what} to hold out: "
                f"add one, or name {train}, of which a tenth is held out"
            )
        raise UserError(
            f"{path} holds a folder {part.name}, and none that is called {TRAIN}: call the folder to train "
            f"on {TRAIN} and what is held out {' or '.join(HELD_OUT)}, or rename {part.name} if it is a "
            "client"
        )
    return [path]


def hold_out(contents: Iterable[bytes]) -> tuple[Rows, Rows]:
    """Return the rows to train on, and about a tenth that is held out, both in their order.

    A hash of a row's content decides, so that equal ones are never on both sides, and lie on the same side on
    every machine. Where fortune would hold out none or all, it is one content, or all but one. Only where all
    are equal is a tenth of them held out all the same.
    """
    shares = np.fromiter(map(share, contents), np.float64)
    smallest, largest = shares.min(initial=1), shares.max(initial=0)
    if smallest == largest:
        test = np.arange(len(shares)) < max(round(TEST_FRACTION * len(shares)), 1)
    else:
        test = ((shares < TEST_FRACTION) | (shares == smallest)) & (shares != largest)
    return np.flatnonzero(~test), np.flatnonzero(test)


def share(content: bytes) -> float:
    """Return a number from 0 to 1 that follows from a content alone."""
    return int.from_bytes(hashlib.sha256(content).digest()[:6], "big") / 2**48


def class_names(
    owner: object, found: Collection[str], given: object, known: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the classes in the order of their numbers, of data in which some were `found`.

    `given` is the option `classes`, `known` what the data itself says of them; without either they are those
    that there are, whole numbers by size before names. All are as `label_name` has them. Raises UserError, in
    which the data is called `owner`, for a class that is not named.
    """
    named = named_classes(given)
    names = named or tuple(map(label_name, known)) or tuple(sorted(found, key=in_order))
    if strange := sorted(set(found).difference(names)):
        advice = "name it too" if named else "hold out another split, or name all of them in classes"
        says = "classes names" if named else "says that there are"
        raise UserError(f"{owner} has a class {strange[0]!r}, and {says} {', '.join(names)}: {advice}")
    return names


def named_classes(given: object, option: str = "classes") -> tuple[str, ...]:
    """Return the classes that an option names; () where it names none."""
    given_names = tuple(given) if isinstance(given, list | tuple) else (None,)
    names = tuple(label_name(name) for name in given_names if isinstance(name, str))
    if len(set(names)) < len(given_names):
        raise UserError(
            f"{option} must be a list of names such as ['cat', 'dog'], each once, got {shown(given)}"
        )
    return names


def label_name(text: str) -> str:
    """Return the name of a label as all machines write it, in Unicode's form NFC.

    Two texts that look alike are the same name then: macOS has made "é" of two signs in the names of folders.
    """
    return unicodedata.normalize("NFC", text)


def in_order(name: str) -> tuple[int, int, str, str]:
    """Return what classes are sorted by of which nobody has said the order: whole numbers before names."""
    if not (name.isascii() and name.isdigit()):
        return 1, 0, "", name
    digits = name.lstrip("0")  # compared as texts: of thousands of digits Python makes no number
    return 0, len(digits), digits, name
