"""JSON files as tables: an object a line, or a list of objects."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from models.core.errors import UserError
from models.data.table import PART, Part, Table, check_encoding, in_parts, other_encoding


class JsonTable(Table):
    """A file of JSON lines, or of one list, which is read at once; an object is a row, and its names columns.

    A name that an object lacks is a value that is not filled in.
    """

    example: str = '{"text": "so good", "label": "praise"}'
    """A line that errors show."""

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        self.path, self.name = path, str(path)
        self.encoding = check_encoding(encoding)

    @cached_property
    def columns(self) -> Sequence[str]:
        """Return the names in the first objects, each of which may lack some."""
        return list(dict.fromkeys(name for _, row in islice(self._objects(), PART) for name in row))

    def parts(self, columns: Sequence[str]) -> Iterator[Part]:
        """Yield the objects."""
        yield from in_parts(
            ((place, [row.get(column) for column in columns]) for place, row in self._objects()), columns
        )

    def _objects(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield each object with the number of its line, or of its place in the list."""
        try:
            with self.path.open(encoding=self.encoding, newline="\n") as file:
                numbered = enumerate(file, start=1)
                first = next(((number, line) for number, line in numbered if line.strip()), None)
                if first is None:
                    return
                lines = chain([first], numbered)
                if first[1].lstrip().startswith("["):
                    yield from self._in_a_list("".join(line for _, line in lines))
                    return
                for number, line in lines:
                    if line.strip():
                        yield number, self._object(number, line)
        except UnicodeError as error:
            raise other_encoding(self.name, self.encoding, error) from error
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}): give a JSON file") from error

    def _object(self, number: int, line: str) -> Mapping[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:  # the latter of brackets in brackets
            raise self._no_object(number, error) from error
        if not isinstance(found, dict):
            raise self._no_object(number, f"it is {line.strip()[:60]!r}")
        return found

    def _in_a_list(self, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise self._no_object(error.lineno, error.msg) from error
        except (ValueError, RecursionError) as error:
            raise self._no_object(1, error) from error
        for number, row in enumerate(found, start=1):
            if not isinstance(row, dict):
                raise self._no_object(number, f"the list's item {number} is {str(row)[:60]!r}")
            yield number, row

    def _no_object(self, number: int, why: object) -> UserError:
        return UserError(
            f"{self.path}, line {number}: no JSON object ({why}): give a line such as {self.example} for "
            "each row, or one list of them"
        )
