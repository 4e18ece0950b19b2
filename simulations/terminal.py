"""What polyfed prints on: a terminal of some width, or a pipe, in whatever encoding."""

import codecs
import io
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from copy import copy
from textwrap import TextWrapper
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

UNBOUNDED = 100_000
"""Columns of a pipe, in which no line is folded."""
IN_ASCII = {"↑": "^", "↓": "v", "±": "+-", "–": "-", "—": "-", "…": "...", "×": "x"}
"""Our own signs, for a terminal that has none but ASCII's."""
ACTING = ("Cc", "Cs", "Zl", "Zp")
"""Categories of what a terminal acts on, or cannot show: controls, half characters, ends of lines."""
ACTING_BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Classes of the signs that turn the direction of what follows them."""
END_OF_LINE = "\n"


def harmless(text: str, keep: str = "", instead: str = "") -> str:
    """Return a text on which no terminal acts, but for what is to be kept; all letters and blanks stay.

    What goes is replaced by `instead`, or by its number.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        (instead or ascii(each)[1:-1]) if each not in keep and _acts(each) else each for each in text
    )


def _acts(letter: str) -> bool:
    return unicodedata.category(letter) in ACTING or unicodedata.bidirectional(letter) in ACTING_BIDI


class UncroppedConsole(Console):
    """A console that cuts no line off: a word that is longer than the terminal is wide goes on below.

    What it is given to print, such as what others' files say, moves no cursor and sets no colours.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does."""
        super().print(*objects, **{"crop": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of what is printed, without what a terminal would act on."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else piece._replace(text=harmless(piece.text, keep=END_OF_LINE))


def make_console(*, errors: bool = False, quiet: bool = False) -> Console:
    """Return a console on standard output, or on standard error.

    Text is printed as it is: a "[" in a name is no markup. Where nobody looks, no line is folded.
    """
    is_terminal = (sys.stderr if errors else sys.stdout).isatty()
    width = None if is_terminal else UNBOUNDED
    return UncroppedConsole(
        stderr=errors, quiet=quiet, width=width, markup=False, highlight=False, emoji=False
    )


def let_any_text_be_printed() -> None:
    """Let standard output and error take every character, by another sign or its number where they must."""
    codecs.register_error("polyfed", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="polyfed")


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    one = error.object[error.start]
    sign = IN_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode()
    return sign, error.start + 1


class Table(RichTable):
    """A table that splits no word: in a pipe a row is a line, on a terminal too narrow for it a paragraph."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield it in the form that fits."""
        if console.is_terminal and (fitted := self._fitted(console, options)):
            yield from RichTable.__rich_console__(fitted, console, options)
            return
        for line in self._paragraphs(options.max_width) if console.is_terminal else self._lines():
            yield Text(line.rstrip(), no_wrap=True, overflow="ignore")

    def _fitted(self, console: Console, options: ConsoleOptions) -> "Table | None":
        """Return the table with a width for each column that holds its longest word; None where none does.

        Rich itself would take from the widest column first, whatever is in it.
        """
        at_will = options.update(width=UNBOUNDED)
        needs = [self._measure_column(console, at_will, column) for column in self.columns]
        spare = options.max_width - self._extra_width - sum(need.minimum for need in needs)
        if spare < 0:
            return None
        wanted = sum(need.span for need in needs)
        share = min(1.0, spare / wanted) if wanted else 0.0
        fitted = copy(self)
        fitted.columns = [copy(column) for column in self.columns]
        for number, (column, need) in enumerate(zip(fitted.columns, needs, strict=True)):
            padding = self._get_padding_width(number)
            column.width = need.minimum - padding + int(need.span * share)
        return fitted

    def _rows(self) -> list[list[str]]:
        return [[" ".join(str(cell).split()) for cell in row] for row in zip(*self._columns(), strict=True)]

    def _columns(self) -> list[list[object]]:
        return [[column.header, *column.cells] for column in self.columns]

    def _lines(self) -> Iterator[str]:
        """Yield a line a row, with what the columns need between the cells."""
        rows = self._rows()
        widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
        yield from ([str(self.title)] if self.title else [])
        for row in rows:
            yield "  ".join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True))
        yield from ([str(self.caption)] if self.caption else [])

    def _paragraphs(self, width: int) -> Iterator[str]:
        """Yield for each row its first cell, and the others with their headings; long words stand out."""
        fold = TextWrapper(width, break_long_words=False, break_on_hyphens=False)
        yield from ([str(self.title)] if self.title else [])
        (_, *headings), *rows = self._rows()
        for first, *cells in rows:
            yield from fold.wrap(first)
            fold.initial_indent, fold.subsequent_indent = "  ", "    "
            for heading, cell in zip(headings, cells, strict=True):
                yield from fold.wrap(f"{heading}: {cell}") if cell else []
            fold.initial_indent = fold.subsequent_indent = ""
        yield from fold.wrap(str(self.caption)) if self.caption else []
