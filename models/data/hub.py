"""Datasets of Hugging Face's library `datasets`: folders and files of one's own, its cache, and the hub."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.core.config import TaskConfig
from models.core.errors import UserError, shown
from models.data.dataset import Dataset
from models.data.held_out import class_names, held_out_parts, hold_out, named_classes
from models.data.hub_places import SAVED, Places, files_below, load_folder, load_saved
from models.data.names import class_name, client_names, label_text
from models.data.pictures import Half, Shape, picture_dataset
from models.data.series import HORIZON, WINDOW
from models.data.table import PART, Part, Table
from models.data.table_arrow import named_cells, need, python_cells
from models.data.tables import CLIENT, LABEL, OF_SERIES, SERIES, TEXT, VALUE, Meaning, Names, make_dataset
from models.data.tag_schemes import is_tag, to_iob2
from models.data.tagged_sentences import Sentence, dataset_of, named_types

# The library is imported where it is used: it is optional, and takes a second.

IMAGE, WORDS, TAGS = "image", "tokens", "ner_tags"
"""Names of columns, where nobody gives others."""
TRAIN = "train"
_OF_HUB = "hf://datasets/"
"""Before a name: it is no folder, whatever lies in the current one."""
_READERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
"""Ending of a file -> what the library reads it with."""
_PICTURES_AT_ONCE = 256


class HubTable(Table):
    """A split of a dataset, whose rows the library maps from the disk."""

    counts = "row"

    def __init__(self, name: str, split: Any, places: Places) -> None:
        self.name, self.split, self.places = name, split, places

    @property
    def columns(self) -> Sequence[str]:
        """Return the names of its features."""
        return list(self.split.column_names)

    def parts(self, columns: Sequence[str], size: int = PART) -> Iterator[Part]:
        """Yield the rows, at most `size` at a time: as they are stored, no file that one names is read."""
        first = 1
        chosen = self.split.select_columns(list(dict.fromkeys(columns)))
        for stored in chosen.with_format("arrow").iter(size):
            place = range(first, first + stored.num_rows)
            first += stored.num_rows
            cells = {each: python_cells(self, each, place, stored.column(each)) for each in columns}
            yield Part(place, {each: self._cells(cells[each], each) for each in columns})

    def classes(self, column: str) -> tuple[str, ...]:
        """Return the names of a ClassLabel's numbers, also of those in lists."""
        feature = self.split.features.get(column)
        names = getattr(getattr(feature, "feature", feature), "names", None)
        return tuple(names) if names else ()

    def picture(self, place: int, column: str, cell: Any) -> Any:
        """Return what a cell holds as a picture; UserError where it is none, or lies elsewhere."""
        import datasets
        from PIL.Image import DecompressionBombError

        feature = self.split.features[column]
        if not (isinstance(feature, datasets.Image) and isinstance(cell, dict)):
            raise self.refuse(place, column, "a picture, as a feature of the type Image is", cell)
        path = cell.get("path")
        if cell.get("bytes") is None and not (path and self.places.has(path)):
            raise self.refuse(place, column, "a picture in the dataset itself, not a file elsewhere", path)
        try:
            return datasets.Image(mode=feature.mode).decode_example(cell)
        except (OSError, ValueError, SyntaxError, DecompressionBombError) as error:  # as Pillow has it
            why = " ".join(str(error).split())[:100]
            raise self.refuse(place, column, "a picture that can be read", why) from error

    def _cells(self, cells: Sequence[Any], column: str) -> Sequence[Any]:
        names = self.classes(column)
        if not names or not any(isinstance(cell, list) for cell in cells):
            return named_cells(cells, names)
        return [named_cells(cell, names) if isinstance(cell, list) else cell for cell in cells]


@dataclass(frozen=True)
class Extra:
    """Options beside those of every table, for columns that only such datasets have."""

    image: str
    shape: Shape
    words: str
    tags: str
    types: Sequence[str]

    @property
    def of_pictures(self) -> list[str]:
        """Options of pictures that were given."""
        usual = Shape()
        given = {
            "image": self.image,
            "size": self.shape.size != usual.size,
            "channels": self.shape.channels != usual.channels,
        }
        return [name for name, is_given in given.items() if is_given]

    @property
    def of_sentences(self) -> list[str]:
        """Options of tagged sentences that were given."""
        given = {"words": self.words, "tags": self.tags, "types": self.types}
        return [name for name, is_given in given.items() if is_given]


def load_hf(
    config: TaskConfig,
    subset: str = "",
    train_split: str = TRAIN,
    test_split: str = "",
    time: str = "",
    value: Names = "",
    client: str = CLIENT,
    time_format: str = "",
    window: int = WINDOW,
    horizon: int = HORIZON,
    max_step: float = 0.0,
    text: Names = "",
    label: str = "",
    classes: Sequence[str] = (),
    image: str = "",
    size: int = 32,
    channels: int = 3,
    words: str = "",
    tags: str = "",
    types: Sequence[str] = (),
) -> Dataset:
    """Return what "hf:NAME" is to the library `datasets`: one's own folder or file, or a name of the hub.

    A path is absolute, or below `data_dir` where that is set. Any other name is read from the library's
    cache, and fetched where `download` allows it. `subset` is the configuration of a dataset that has
    several, `train_split` and `test_split` name its parts; without one to hold out, a tenth is. The columns
    decide what it is: `image` and `label` are pictures, scaled to `size` and `channels`, `words` and
    `tags` are tagged sentences of entities of `types`; else it is a table like others.
    """
    need("datasets", config.dataset)
    meaning = Meaning(time, value, time_format, window, horizon, max_step, text, label, classes, client)
    extra = Extra(image, Shape(size, channels), words, tags, types)
    tables = _splits(config, subset, train_split, test_split)
    columns = tables[0].columns
    table_like = time or value or text
    if words or tags or (not (image or table_like) and {WORDS, TAGS} <= set(columns)):
        given = meaning.given(*OF_SERIES, "text", "label", "classes")
        _refuse("tagged sentences", [*given, *extra.of_pictures])
        return _tagged(config.dataset, tables, extra)
    if image or (IMAGE in columns and not table_like and VALUE not in columns and TEXT not in columns):
        _refuse("pictures", [*meaning.given(*OF_SERIES, "text"), *extra.of_sentences])
        return _pictures(config.dataset, tables, extra, meaning)
    _refuse("a table", [*extra.of_pictures, *extra.of_sentences])
    if meaning.kind(columns) == SERIES and not test_split:
        tables = tables[:1]  # whose last fifth is held out
    return make_dataset(config.dataset, tables, meaning)


def _refuse(what: str, given: Sequence[str]) -> None:
    """Raise UserError for options that data of its kind does not have."""
    if given:
        raise UserError(f"dataset-options must be those of {what}, as the columns are, got {given[0]}")


def files_of_hf(config: TaskConfig) -> list[Path]:
    """Return the files of a dataset that lies in a folder of one's own; none for one of the hub."""
    path = _own_path(config)
    if path is None:
        return []
    return files_below(path)


def _own_path(config: TaskConfig) -> Path | None:
    """Return the path that a dataset's name is; None for a name of the hub."""
    path = Path(config.data_dir, config.dataset.partition(":")[2])
    return path if path.is_absolute() and path.exists() else None


def _splits(config: TaskConfig, subset: str, train: str, test: str) -> list[HubTable]:
    """Return the split to train on and, where there are any, those to hold out and for validation."""
    places = Places.of(_own_path(config))
    found = _load(config, subset, places)
    if not isinstance(found, Mapping):
        if test:
            raise UserError(
                f"dataset {config.dataset!r} has no splits, so test_split must be '', got {test!r}"
            )
        return [HubTable(config.dataset, found, places)]
    held_out, *validation = [test] if test else held_out_parts(found.__contains__) or [""]
    for option, name in (("train_split", train), ("test_split", held_out)):
        if name and name not in found:
            raise UserError(f"{option} must be one of {', '.join(found)}, got {shown(name)}")
    names = [train, held_out] if held_out and held_out != train else [train]
    names += [name for name in validation if name not in names]
    return [HubTable(f"{config.dataset} ({name})", found[name], places) for name in names]


def _load(config: TaskConfig, subset: str, places: Places) -> Any:
    """Return what the library loads: a dataset, or one a split."""
    import datasets

    path, name = _own_path(config), config.dataset.partition(":")[2]
    if path is None and (Path(name).is_absolute() or (config.data_dir and not config.download)):
        of_hub = "a name of the hub is read where data-dir is '' or download is true"
        raise UserError(
            f"dataset {config.dataset!r} must be a folder or a file that is there, got "
            f"{Path(config.data_dir, name)}{'' if Path(name).is_absolute() else f'; {of_hub}'}"
        )
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # every worker would print them
    loud = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it says of an error is in our line
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or path is not None or not config.download
    try:
        if path is None:
            return datasets.load_dataset(f"{_OF_HUB}{name}", subset or None)
        if path.is_file():
            return _one_file(path)
        if any((path / each).is_file() for each in SAVED):
            return load_saved(path, places)
        return load_folder(path, subset, places)
    except UserError:
        raise
    except Exception as error:  # the library raises whatever what it reads with does
        if path and (empty := [each for each in files_below(path) if _is_empty(each)]):
            raise UserError(f"{empty[0]} is empty: give it rows, or leave it out") from error
        cause: BaseException = error
        while isinstance(cause, datasets.exceptions.DatasetGenerationError) and cause.__cause__:
            cause = cause.__cause__  # the former says no more than that there was an error
        why = f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
        of_hub = (
            "check its name and the network" if config.download else "it is fetched where download is true"
        )
        advice = "" if path else f"; {of_hub}"
        raise UserError(f"dataset {config.dataset!r} cannot be loaded ({why}){advice}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before
        datasets.logging.set_verbosity(loud)
        if bars:
            datasets.enable_progress_bars()


def _is_empty(file: Path) -> bool:
    return file.suffix.lower() in _READERS and not file.stat().st_size


def _one_file(path: Path) -> Any:
    import datasets

    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} must end in {', '.join(_READERS)}, or name a folder")
    return datasets.load_dataset(reader, data_files=str(path), split=TRAIN)


def _pictures(name: str, tables: Sequence[HubTable], extra: Extra, meaning: Meaning) -> Dataset:
    """Return pictures with labels, scaled one by one."""
    image, label = extra.image or IMAGE, meaning.label or LABEL
    client = meaning.client if meaning.client != CLIENT or CLIENT in tables[0].columns else ""
    labels = []
    for table in tables:
        table.check_columns([image, label])
        labels.append(
            [
                class_name(table, place, label, cell)
                for part in table.filled([label])
                for place, cell in zip(part.place, part.cells[label], strict=True)
            ]
        )
    found = {each for of_half in labels for each in of_half}
    given, known = (
        [*map(label_text, each)] for each in (named_classes(meaning.classes), tables[0].classes(label))
    )
    classes = class_names(name, found, given, known)
    number = {each: place for place, each in enumerate(classes)}
    halves: list[Half] = [
        (
            extra.shape.column(len(of_half), _pixels(table, image, extra.shape)),
            np.array([number[each] for each in of_half], dtype=np.int64),
        )
        for table, of_half in zip(tables, labels, strict=True)
    ]
    parts = tables[0].parts([client]) if client else ()
    owners = [each for part in parts for each in client_names(tables[0], part, client)]
    return picture_dataset(name, halves, classes, owners)


def _pixels(table: HubTable, column: str, shape: Shape) -> Iterator[NDArray[np.uint8]]:
    """Yield each picture of a column as (C, H, W)."""
    for part in table.parts([column], _PICTURES_AT_ONCE):
        for place, cell in zip(part.place, part.cells[column], strict=True):
            picture = table.picture(place, column, cell)
            try:
                yield shape.pixels(picture)
            except (OSError, ValueError) as error:
                raise table.refuse(place, column, f"a picture that can be read ({error})", cell) from error


def _tagged(name: str, tables: Sequence[Table], extra: Extra) -> Dataset:
    """Return sentences of words and their tags; of one split alone, about a tenth is held out."""
    words, tags = extra.words or WORDS, extra.tags or TAGS
    halves = []
    for table in tables:
        table.check_columns([words, tags])
        halves.append(
            [
                Sentence(*_checked(table, place, given, (words, tags)))
                for part in table.parts([words, tags])
                for place, *given in zip(part.place, part.cells[words], part.cells[tags], strict=True)
                if given != [[], []]
            ]
        )
    if len(halves) == 1:
        whole = halves[0]
        contents = ("\0".join(sentence.words).encode(errors="surrogatepass") for sentence in whole)
        halves = [[whole[row] for row in rows] for rows in hold_out(contents)]
    return dataset_of(name, *halves, types=named_types(extra.types))


def _checked(
    table: Table, place: int, given: Sequence[Any], columns: tuple[str, str]
) -> tuple[list[str], list[str]]:
    """Return the words of a sentence, and their tags as IOB2; UserError for what are none."""
    for column, cell in zip(columns, given, strict=True):
        if not (isinstance(cell, list) and all(isinstance(each, str) for each in cell)):
            raise table.refuse(place, column, "a list of texts", cell)
    words, tags = given
    if len(words) != len(tags):
        raise table.refuse(place, columns[1], f"a tag for each of {len(words)} words", tags)
    if strange := [tag for tag in tags if not is_tag(tag)]:
        raise table.refuse(place, columns[1], "tags such as O, B-PER and I-PER", strange[0])
    return words, to_iob2(tags)
