"""Parallel text of one's own: line-aligned files as OPUS, Moses and WMT ship them, or tables with tabs."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from models.core.config import TaskConfig, require
from models.data.dataset import Dataset
from models.data.held_out import HELD_OUT, held_out_files, share
from models.data.parallel_files import Line, Reading, corpora, read_corpus
from models.data.parallel_text import Pair, dataset_of
from models.data.source import source_path


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
    column, or by the files of a folder, of which "test" (or another of HELD_OUT) is held out. Without
    such a file, pairs are held out by a hash of their source, so that no source is on both sides. Raises
    UserError, with file and line, for what is no parallel text.
    """
    require(0 < test_fraction < 1, "test_fraction", "> 0 and < 1", test_fraction)
    how = Reading(source, target, source_column, target_column, client_column, max_bytes, skip_longer)
    path = source_path(config)
    found = corpora(path, how)
    read = {name: read_corpus(files, how) for name, files in found.items()}
    lines = {
        name: [line._replace(client=line.client or name) for line in of] for name, (of, _) in read.items()
    }
    train, *others = _parts(lines, held_out_files(path, lines), test_fraction)
    clients = sorted({line.client for line in train})
    number = {client: place for place, client in enumerate(clients)}
    return dataset_of(
        config.dataset,
        [Pair(line.source, line.target, number[line.client]) for line in train],
        *([Pair(line.source, line.target) for line in part] for part in others),
        client_names=tuple(clients) if len(clients) > 1 or client_column else (),
        skipped=sum(skipped for _, skipped in read.values()),
    )


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


def held_out(sources: Collection[str], fraction: float) -> set[str]:
    """Return the sources that are held out: those of the smallest hashes, wherever they stand.

    Where fortune would hold out none or all, it is one, or all but one; of none there is none.
    """
    shares = {source: share(source.encode()) for source in sources}
    chosen = {source for source in sources if shares[source] < fraction}
    if not sources:
        return chosen
    if not chosen:
        return {min(shares, key=shares.__getitem__)}
    return chosen if len(chosen) < len(shares) else chosen - {max(shares, key=shares.__getitem__)}


def _parts(lines: Mapping[str, list[Line]], told: Sequence[str], fraction: float) -> list[list[Line]]:
    """Split the lines of files, by the names of those that are `told` to be held out, else by their sources.

    A third part is for validation.
    """
    if told:
        train = [line for name, of in lines.items() if name not in HELD_OUT for line in of]
        return [train, *(lines[name] for name in told)]
    every = [line for of in lines.values() for line in of]
    sources = held_out({line.source for line in every}, fraction)
    return [[line for line in every if (line.source in sources) is side] for side in (False, True)]
