"""CSV files as tables."""

import csv
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Literal

from models.core.config import require
from models.core.errors import UserError
from models.data.table import Part, Table, check_encoding, in_parts, other_encoding

LONGEST_CELL = 2**24
"""Characters of a value; Python's own limit of 2^17 is less than a long text."""

QUOTE = '"'


class CsvTable(Table):
    """A CSV file whose first line names the columns; an empty line is no row.

    A value between quotes may hold delimiters and the ends of lines, unless `quote` is "". It is None for a
    loader without such an option, of which no error then speaks.
    """

    def __init__(
        self, path: Path, encoding: str = "utf-8", delimiter: str = ",", quote: str | None = None
    ) -> None:
        fits = len(delimiter) == 1 and delimiter not in '\r\n"\0 '
        require(fits, "delimiter", "one sign such as ',', ';' or a tab (\"\\t\")", delimiter)
        require(
            quote in (QUOTE, "", None), "quote", f"{QUOTE!r}, or '' where quotes are parts of values", quote
        )
        self.path, self.name = path, str(path)
        self.encoding, self.delimiter = check_encoding(encoding), delimiter
        self.quote = quote

    @cached_property
    def columns(self) -> Sequence[str]:
        """Return the names in the first line."""
        return next(self._lines())[1]

    def advice_on(self, missing: Sequence[str]) -> str:
        """Return it with the delimiter."""
        signs = {",": "commas", "\t": "tabs"}
        between = signs.get(self.delimiter, repr(self.delimiter))
        return f"{super().advice_on(missing)}, and delimiter where it has other signs than {between} between"

    def parts(self, columns: Sequence[str]) -> Iterator[Part]:
        """Yield the rows below the first line."""
        # The last is there so that one column too comes as a tuple.
        wanted = itemgetter(*(self.columns.index(column) for column in columns), 0)
        rows = self._lines()
        next(rows)
        yield from in_parts(((place, wanted(row)) for place, row in rows), columns)

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the header, and each row, with the number of its first line."""
        number = 0
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            with self.path.open(encoding=self.encoding, newline="") as file:
                quoting: Literal[0, 3] = csv.QUOTE_NONE if self.quote == "" else csv.QUOTE_MINIMAL
                reader = csv.reader(file, strict=True, delimiter=self.delimiter, quoting=quoting)
                header = [name.strip() for name in next(filter(None, reader), [])]
                yield 1, header
                number = reader.line_num
                for row in reader:
                    first, number = number + 1, reader.line_num  # a quoted value may hold a line feed
                    if not row:
                        continue
                    if len(row) != len(header):
                        raise self._wrong_length(first, row, len(header))
                    yield first, row
        except UnicodeError as error:
            raise other_encoding(self.name, self.encoding, error) from error
        except csv.Error as error:
            advice = "where quotes are parts of the values, set quote = '' in dataset-options"
            if self.quote is None:
                advice = "where a quote is a part of a value, write it twice in a value between quotes"
            raise UserError(
                f"{self.path}, line {number + 1}: no row of a CSV file ({error}); {advice}"
            ) from error
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}): give a CSV file") from error
        finally:
            csv.field_size_limit(before)

    def _wrong_length(self, line: int, row: Sequence[str], expected: int) -> UserError:
        between = "commas" if self.delimiter == "," else repr(self.delimiter)
        return UserError(
            f"{self.path}, line {line}: expected {expected} values with {between} between, as the header "
            f"has, got {len(row)}: {self.delimiter.join(row)[:100]!r}"
        )
