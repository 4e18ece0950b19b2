"""Parallel text of one's own: line-aligned files as OPUS, Moses and WMT ship them, or tables with tabs."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from models.core.config import TaskConfig, require
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.parallel_text import EMPTY, Pair, dataset_of
from models.data.source import source_path

TABLE = ".tsv"
HELD_OUT = ("test", "valid", "dev")
"""Stems of files in a folder that are held out, the first of them that there is."""


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
        require(bool(self.source) == bool(self.target), "source", "set where target is, or neither", self.source)
        require(not self.source or self.source != self.target, "target", "another ending than source", self.target)
        for name, least in (("source_column", 1), ("target_column", 1), ("client_column", 0), ("max_bytes", 1)):
            require(getattr(self, name) >= least, name, f">= {least}", getattr(self, name))
        columns = [self.source_column, self.target_column, self.client_column]
        apart = len(set(columns)) == len(columns)
        require(apart, "source_column, target_column and client_column", "three different columns", columns)


def load_parallel(
    config: TaskConfig,
    source: str = "",
    target: str = "",
    source_column: int = 1,
    target_column: int = 2,
    client_column: int = 0,
    test_fraction: float = 0.1,
    max_bytes: int = 500,
    skip_longer: bool = False,
) -> Dataset:
    """Read "parallel:PATH": a table PATH with tabs between, the two files PATH.SOURCE and PATH.TARGET, or a
    folder PATH of either.

    `source` and `target` are the endings of line-aligned files, as "de" and "en" of news.de and news.en;
    `source_column`, `target_column` and `client_column` are those of tables. Clients are natural by their
    column, or by the files of a folder, of which "test" (or "valid", or "dev") is held out. Without such a
    file, pairs are held out by a hash of their source, so that no source is on both sides. Raises UserError,
    with file and line, for what is no parallel text.
    """
    require(0 < test_fraction < 1, "test_fraction", "> 0 and < 1", test_fraction)
    how = Reading(source, target, source_column, target_column, client_column, max_bytes, skip_longer)
    corpora = _corpora(source_path(config), how)
    skipped = 0
    held_out = next((name for name in HELD_OUT if name in corpora and len(corpora) > 1), None)
    train: list[tuple[str, Pair]] = []
    test: list[Pair] = []
    for name, files in corpora.items():
        for line in _lines(files, how):
            if max(len(line.source.encode()), len(line.target.encode())) > how.max_bytes:
                skipped += 1
            elif name == held_out or (held_out is None and _is_held_out(line.source, test_fraction)):
                test.append(Pair(line.source, line.target))
            elif name not in HELD_OUT or len(corpora) == 1:
                train.append((line.client or name, Pair(line.source, line.target)))
    clients = sorted({client for client, _ in train})
    number = {client: place for place, client in enumerate(clients)}
    pairs = [pair._replace(client=number[client]) for client, pair in train]
    names = tuple(clients) if len(clients) > 1 or how.client_column else ()
    return dataset_of(config.dataset, pairs, test, client_names=names, skipped=skipped)


def files_of_parallel(config: TaskConfig) -> list[Path]:
    """Return the files at the path in the dataset's name: it, those in it, or those that begin with it."""
    path = source_path(config)
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not path.parent.is_dir():
        return []
    begins = f"{path.name}."
    return sorted(file for file in path.parent.iterdir() if file.is_file() and file.name.startswith(begins))


def _corpora(path: Path, how: Reading) -> Mapping[str, Sequence[Path]]:
    """Return what there is to read, by name: each of it one table, or two aligned files."""
    if path.is_file():
        return {path.stem: [path]}
    if path.is_dir() and not how.source:
        tables = {file.stem: [file] for file in sorted(path.glob(f"*{TABLE}"))}
        if not tables:
            raise UserError(
                f"{path} holds no table with the ending {TABLE}: put some there, or name the endings of "
                "line-aligned files, such as source = 'de', target = 'en' in dataset-options"
            )
        return tables
    if path.is_dir():
        sides = [
            {file.name.removesuffix(f".{ending}"): file for file in path.glob(f"*.{ending}")}
            for ending in (how.source, how.target)
        ]
        for name in sorted(sides[0].keys() ^ sides[1].keys()):
            raise _no_twin(path / name, how)
        if not sides[0]:
            raise UserError(f"{path} holds no files that end in .{how.source} and .{how.target}: put some there")
        return {name: [side[name] for side in sides] for name in sorted(sides[0])}
    if not how.source:
        raise UserError(
            f"{path} is neither a table nor a folder: give one, or the path of two line-aligned files without "
            "their endings, and these as source = 'de', target = 'en' in dataset-options"
        )
    pair = [path.with_name(f"{path.name}.{ending}") for ending in (how.source, how.target)]
    if not all(file.is_file() for file in pair):
        raise _no_twin(path, how)
    return {path.name: pair}


def _no_twin(stem: Path, how: Reading) -> UserError:
    missing = [e for e in (how.source, how.target) if not stem.with_name(f"{stem.name}.{e}").is_file()]
    return UserError(
        f"{stem}.{missing[0]} is missing: line-aligned files are {stem.name}.{how.source} and "
        f"{stem.name}.{how.target}"
    )


def _lines(files: Sequence[Path], how: Reading) -> Iterator[Line]:
    """Yield the pairs of a table or of two aligned files; what is empty on both sides is none."""
    rows = _table(files[0], how) if len(files) == 1 else _aligned(files[0], files[1])
    for place, line in rows:
        if not (line.source or line.target):
            continue
        for side in ("source", "target"):
            text = getattr(line, side)
            if not text:
                raise UserError(f"{place}: the {side} is empty and its other side is not: leave both out")
            if chr(EMPTY) in text:
                raise UserError(f"{place}: the {side} holds a zero byte, which no text does: leave the pair out")
            if (size := len(text.encode())) > how.max_bytes and not how.skip_longer:
                raise UserError(
                    f"{place}: the {side} has {size} bytes, more than max_bytes ({how.max_bytes}): set it "
                    "higher in dataset-options, or skip_longer = true"
                )
        yield line


def _aligned(source: Path, target: Path) -> Iterator[tuple[str, Line]]:
    sides = [_read(file) for file in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{source} has {len(sides[0])} lines and {target.name} {len(sides[1])}: line n of one must be the "
            "translation of line n of the other"
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
            raise UserError(f"{file}, line {number}: the client in column {how.client_column} is empty: name it")
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


def _is_held_out(source: str, fraction: float) -> bool:
    """Return whether a pair is held out: the same source always is, wherever it stands."""
    digest = hashlib.sha256(source.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
