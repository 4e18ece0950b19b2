"""Tables of one's own: by its columns a CSV, JSON or Parquet file holds series or texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from models.core.config import TaskConfig, require
from models.core.errors import UserError, shown
from models.data.dataset import Dataset
from models.data.held_out import HELD_OUT, files_of_parts, named_classes
from models.data.labelled_text import KIND, TextColumns, read_labelled_text
from models.data.series import HORIZON, WINDOW, Cut
from models.data.series_tables import SeriesColumns, read_series
from models.data.source import source_path
from models.data.table import Table
from models.data.table_arrow import ParquetTable
from models.data.table_csv import QUOTE, CsvTable
from models.data.table_json import JsonTable
from models.data.text_tables import read_text

SERIES, PLAIN_TEXT = "series", "text"
OF_SERIES = ("time", "value", "time_format", "window", "horizon", "max_step")
"""Options of series alone."""
ALSO = (KIND, PLAIN_TEXT)
"""What a table may hold beside series."""
Names = str | Sequence[str]
TEXT, LABEL, TIME, VALUE, CLIENT = "text", "label", "time", "value", "client"
"""Names of columns, where nobody gives others."""


@dataclass(frozen=True)
class Meaning:
    """Options that say what the columns of a table are; "" is a column that is called as the option is."""

    time: str = ""
    value: Names = ""
    time_format: str = ""
    window: int = WINDOW
    horizon: int = HORIZON
    max_step: float = 0.0
    text: Names = ""
    label: str = ""
    classes: Sequence[str] = ()
    client: str = CLIENT

    def kind(self, columns: Sequence[str]) -> str:
        """Return what kind of data a table with these columns is; UserError for options of several.

        It is text where `text` or `label` are named, or where a column is called so and none is called as the
        value of a series; else series. Text without a column of labels has no classes.
        """
        of_series, of_text = self.given(*OF_SERIES), self.given("text", "label", "classes")
        if of_series and of_text:
            raise UserError(
                f"dataset-options must be of series or of labelled texts, got {of_series[0]} and {of_text[0]}"
            )
        called_so = TEXT in columns and VALUE not in columns
        if not (of_text or (called_so and not of_series)):
            return SERIES
        return KIND if self.given("label", "classes") or LABEL in columns else PLAIN_TEXT

    def given(self, *names: str) -> list[str]:
        """Return which of these options differ from their defaults."""
        usual = {field.name: field.default for field in fields(self)}
        return [name for name in names if getattr(self, name) != usual[name]]


def load_csv(
    config: TaskConfig,
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
    encoding: str = "utf-8",
    delimiter: str = ",",
    decimal: str = ".",
    quote: str = QUOTE,
) -> Dataset:
    """Return what "csv:PATH" holds: the series or the texts of a file with a line of names first.

    See `load_table` for the options that all tables have. `decimal` is the sign before a number's fraction;
    `quote` stands around values that hold a delimiter or the end of a line, "" = quotes are parts of values.
    """
    require(decimal in (".", ","), "decimal", "'.' or ','", decimal)
    # Between quotes a value may hold both.
    require(quote != "" or decimal != delimiter, "decimal", "another sign than delimiter", decimal)
    meaning = Meaning(time, value, time_format, window, horizon, max_step, text, label, classes, client)
    return load_table(
        config, "csv", lambda path: CsvTable(path, encoding, delimiter, quote), meaning, decimal
    )


def load_json(
    config: TaskConfig,
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
    encoding: str = "utf-8",
) -> Dataset:
    """Return what "json:PATH" holds: the series or the texts of JSON lines, or of one list."""
    meaning = Meaning(time, value, time_format, window, horizon, max_step, text, label, classes, client)
    return load_table(config, "json", lambda path: JsonTable(path, encoding), meaning)


def load_parquet(
    config: TaskConfig,
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
) -> Dataset:
    """Return what "parquet:PATH" holds: the series or the texts of a Parquet file."""
    meaning = Meaning(time, value, time_format, window, horizon, max_step, text, label, classes, client)
    return load_table(config, "parquet", ParquetTable, meaning)


def load_table(
    config: TaskConfig, ending: str, opened: Callable[[Path], Table], meaning: Meaning, decimal: str = "."
) -> Dataset:
    """Return the examples of a file, or of a folder with `train.ENDING` and `test.ENDING`.

    Of series, `time`, `value` (a list of several) and `client` name the columns; a client is one series for
    each value column, and the last fifth of it is held out. Of labelled texts, `text` (several are joined)
    and `label` do, `client` where there is such a column; without a file of its own a tenth is held out.
    Texts without labels are a document for each client, the last tenth of which is held out.
    """
    path = source_path(config)
    tables = [opened(each) for each in halves(path, ending)]
    return make_dataset(config.dataset, tables, meaning, decimal)


def make_dataset(name: str, tables: Sequence[Table], meaning: Meaning, decimal: str = ".") -> Dataset:
    """Return the examples of one table, or of one for each half."""
    columns = tables[0].columns
    kind = meaning.kind(columns)
    if kind == SERIES:
        if len(tables) > 1:
            raise UserError(
                f"dataset {name!r} holds series, whose last fifth is held out: name one file, and no folder"
            )
        series = SeriesColumns(
            meaning.time or TIME,
            _names("value", meaning.value) or [VALUE],
            meaning.client,
            meaning.time_format,
            decimal,
        )
        return read_series(name, tables[0], series, Cut(meaning.window, meaning.horizon, meaning.max_step))
    is_there = meaning.client != CLIENT or CLIENT in columns
    texts = TextColumns(
        _names("text", meaning.text) or [TEXT], meaning.label or LABEL, meaning.client if is_there else ""
    )
    if kind == PLAIN_TEXT:
        return read_text(name, tables, texts)
    return read_labelled_text(name, tables, texts, named_classes(meaning.classes))


def halves(path: Path, ending: str) -> list[Path]:
    """Return the file at a path, or those in a folder: training, then held-out rows, then for validation."""
    if not path.is_dir():
        return [path]
    if found := files_of_parts(path, f".{ending}"):
        return found
    raise UserError(
        f"{path} must be a {ending} file, or a folder with train.{ending} and "
        f"{' or '.join(f'{name}.{ending}' for name in HELD_OUT)}"
    )


def _names(option: str, given: Any) -> list[str]:
    """Return the columns that an option names, one as a text or several as a list."""
    names = [given] if isinstance(given, str) else given
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise UserError(f"{option} must be a column's name, or a list of them, got {shown(given)}")
    return [name for name in names if name]
