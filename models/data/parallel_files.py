"""Files of parallel text, aligned line by line or a table; what is none is refused by its line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from models.core.config import require
from models.core.errors import UserError
from models.data.names import LONGEST_CLIENT, is_client
from models.data.parallel_text import EMPTY

TABLE = ".tsv"


class Line(NamedTuple):
    """A pair of texts with what its line says of its owner."""

    source: str
    target: str
    client: str


@dataclass(frozen=True)
class Reading:
    """How files are read: the options of the loader."""

    source: str
    """Ending of the files with the source texts, such as "de"; "" where they are tables."""
    target: str
    source_column: int
    """Column of a table, from 1 on."""
    target_column: int
    client_column: int
    """0 where no column says whose a pair is."""
    max_bytes: int
    """Bytes of the longest text that is taken."""
    skip_longer: bool
    """Whether a pair with a longer one is left out; else it is refused."""

    def __post_init__(self) -> None:
        require(
            bool(self.source) == bool(self.target), "source", "set where target is, or neither", self.source
        )
        require(
            not self.source or self.source != self.target, "target", "another ending than source", self.target
        )
        for name in ("source", "target"):
            ending = getattr(self, name)
            fits = not set(ending) & set("/\\\0") and not ending.startswith(".")
            require(
                fits, name, "an ending of files such as 'de', without / and \\ and without its dot", ending
            )
        for name, least in (
            ("source_column", 1),
            ("target_column", 1),
            ("client_column", 0),
            ("max_bytes", 1),
        ):
            require(getattr(self, name) >= least, name, f">= {least}", getattr(self, name))
        columns = [self.source_column, self.target_column, self.client_column]
        named = "source_column, target_column and client_column"
        require(not self.source or columns == [1, 2, 0], named, "those of a table", columns)
        require(len(set(columns)) == len(columns), named, "three different columns", columns)


def corpora(path: Path, how: Reading) -> Mapping[str, Sequence[Path]]:
    """Return what there is to read, by name: each of it one table, or two aligned files."""
    if path.is_file() and how.source:
        raise UserError(
            f"{path} is one file, and source and target are the endings of two: leave the ending off the "
            "path, or leave source and target out for a table"
        )
    if path.is_file():
        return {path.stem: [path]}
    if path.is_dir() and not how.source:
        tables = {file.stem: [file] for file in _seen(path, TABLE)}
        if not tables:
            raise UserError(
                f"{path} holds no table with the ending {TABLE}: put some there, or name the endings of "
                "line-aligned files, such as source = 'de', target = 'en' in dataset-options"
            )
        return tables
    if path.is_dir():
        sides = [
            {file.name.removesuffix(f".{ending}"): file for file in _seen(path, f".{ending}")}
            for ending in (how.source, how.target)
        ]
        for name in sorted(sides[0].keys() ^ sides[1].keys()):
            raise _no_twin(path / name, how)
        if not sides[0]:
            raise UserError(
                f"{path} holds no files that end in .{how.source} and .{how.target}: put some there"
            )
        return {name: [side[name] for side in sides] for name in sorted(sides[0])}
    if not how.source:
        raise UserError(
            f"{path} is neither a table nor a folder: give one, or the path of two line-aligned files "
            "without their endings, and these as source = 'de', target = 'en' in dataset-options"
        )
    pair = [path.with_name(f"{path.name}.{ending}") for ending in (how.source, how.target)]
    if not all(file.is_file() for file in pair):
        raise _no_twin(path, how)
    return {path.name: pair}


def _seen(folder: Path, ending: str) -> list[Path]:
    """Return what ends so in a folder and is not hidden, as of editors and file managers."""
    return sorted(
        file for file in folder.iterdir() if file.name.endswith(ending) and not file.name.startswith(".")
    )


def _no_twin(stem: Path, how: Reading) -> UserError:
    missing = [e for e in (how.source, how.target) if not stem.with_name(f"{stem.name}.{e}").is_file()]
    return UserError(
        f"{stem}.{missing[0]} is missing: line-aligned files are {stem.name}.{how.source} and "
        f"{stem.name}.{how.target}"
    )


def read_corpus(files: Sequence[Path], how: Reading) -> tuple[list[Line], int]:
    """Return the pairs of a table or of two aligned files, and how many were left out as too long.

    What is empty on both sides is no pair.
    """
    taken, skipped = [], 0
    for place, line in _table(files[0], how) if len(files) == 1 else _aligned(files[0], files[1]):
        if not (line.source or line.target):
            continue
        for side in ("source", "target"):
            _check(place, side, getattr(line, side), how)
        if max(len(text.encode()) for text in line[:2]) > how.max_bytes:
            skipped += 1
        else:
            taken.append(line)
    return taken, skipped


def _check(place: str, side: str, text: str, how: Reading) -> None:
    if not text:
        raise UserError(f"{place}: the {side} is empty and its other side is not: leave both out")
    if chr(EMPTY) in text:
        raise UserError(f"{place}: the {side} holds a zero byte, which no text does: leave the pair out")
    if (size := len(text.encode())) > how.max_bytes and not how.skip_longer:
        raise UserError(
            f"{place}: the {side} has {size} bytes, more than max_bytes ({how.max_bytes}): set it higher in "
            "dataset-options, or skip_longer = true"
        )


def _aligned(source: Path, target: Path) -> Iterator[tuple[str, Line]]:
    sides = [_read(file) for file in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{source} has {len(sides[0])} lines and {target.name} {len(sides[1])}: line n of one must be "
            "the translation of line n of the other"
        )
    for number, (one, other) in enumerate(zip(*sides, strict=True), start=1):
        yield f"{source} and {target.name}, line {number}", Line(one.strip(), other.strip(), "")


def _table(file: Path, how: Reading) -> Iterator[tuple[str, Line]]:
    columns = (how.source_column, how.target_column, how.client_column)
    for number, line in enumerate(_read(file), start=1):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) < max(columns):
            raise UserError(
                f"{file}, line {number}: expected {max(columns)} columns or more with tabs between, got "
                f"{len(cells)}: {line[:100]!r}"
            )
        texts = [cells[column - 1].strip() if column else "" for column in columns]
        if how.client_column and not texts[2]:
            raise UserError(
                f"{file}, line {number}: the client in column {how.client_column} is empty: name it"
            )
        if how.client_column and not is_client(texts[2]):
            raise UserError(
                f"{file}, line {number}: the client in column {how.client_column} must be a name of at most "
                f"{LONGEST_CLIENT} printable characters, got {texts[2][:60]!r}"
            )
        yield f"{file}, line {number}", Line(*texts)


def _read(file: Path) -> list[str]:
    """Return the lines of a file: what ends at a line feed. Texts may hold any other separator of Unicode."""
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {number}: not in UTF-8 ({error.reason}): save it as UTF-8") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if not lines[-1] else lines
