"""CoNLL column files: a word a line, its tag in another column, an empty line after each sentence."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from models.core.config import TaskConfig, require
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.source import source_path
from models.data.table import check_encoding
from models.data.tag_schemes import OUTSIDE, is_tag, to_iob2
from models.data.tagged_sentences import Sentence, dataset_of, named_types

_CELL = re.compile(r"[^ \t]+")
_MARK = re.compile(r"#(?:begin|end) document\b.*|# newdoc\b.*|(?:\d+[ \t]+)?-DOCSTART-(?:[ \t].*)?")
"""Where a document begins or ends in CoNLL-2012, CoNLL-U and CoNLL-2003."""
_NER = re.compile(r"(?:^|\|)ner=([^|]+)", re.IGNORECASE)
_CONLL_U_COLUMNS = 10
_CONSTANT_AFTER = 20
"""Words after which a column that always holds the same is not taken for words."""


@dataclass(frozen=True)
class Columns:
    """Where a line has its word and its tag: 1 is the first column, -1 the last."""

    word: int
    tag: int

    def __post_init__(self) -> None:
        for name, column in (("word_column", self.word), ("tag_column", self.tag)):
            require(column != 0, name, "a column from 1 on, or from -1 back", column)
        require(self.word != self.tag, "tag_column", "another column than word_column", self.tag)

    def of(self, cells: Sequence[str]) -> tuple[str, str] | None:
        """Return the word and the tag; None where there are too few columns."""
        word, tag = (column - 1 if column > 0 else len(cells) + column for column in (self.word, self.tag))
        if not (0 <= word < len(cells) and 0 <= tag < len(cells) and word != tag):
            return None
        return cells[word], cells[tag]


class _Line(NamedTuple):
    number: int
    text: str


def load_conll(
    config: TaskConfig,
    word_column: int = 1,
    tag_column: int = -1,
    types: Sequence[str] = (),
    encoding: str = "utf-8",
) -> Dataset:
    """Read `conll:DIR`: `train.txt`, and as held-out examples `test.txt`, or `valid.txt` where there is none.

    Beside `test.txt`, `valid.txt` holds the validation examples.
    A line holds a word and, in another column, its tag, in any of the schemes of `to_iob2`; an empty line
    ends a sentence. Where the files mark documents (-DOCSTART- as in CoNLL-2003, #begin document as in
    CoNLL-2012, # newdoc as in CoNLL-U), each document with a sentence is a natural client. `types` names all
    types of entities, where one machine may lack some of them. Raises UserError for files that are missing or
    hold something else.
    """
    folder, columns = source_path(config), Columns(word_column, tag_column)
    test_file, valid_file = folder / "test.txt", folder / "valid.txt"
    held_out = [test_file, valid_file] if test_file.is_file() else [valid_file]
    encoding = check_encoding(encoding)
    train = read_conll(folder / "train.txt", columns, encoding)
    others = [read_conll(file, columns, encoding) for file in held_out[:1]]
    others += [read_conll(file, columns, encoding) for file in held_out[1:] if file.is_file()]
    natural = len({sentence.client for sentence in train}) > 1
    return dataset_of(config.dataset, train, *others, natural=natural, types=named_types(types))


def read_conll(path: Path, columns: Columns, encoding: str = "utf-8-sig") -> list[Sentence]:
    """Read one column file; a sentence's client is the number of its document, or 0 without documents."""
    blocks = _blocks(_lines(path, encoding))
    # A word may begin with "#": such lines are comments where no sentence, or no document, is without them.
    is_conll_u = all(_is_conll_u(line) for block, _ in blocks for line in block if line.text[0] != "#")
    everywhere = _all_commented([block for block, _ in blocks])
    marked = _all_commented([block for block, begins_here in blocks if begins_here])
    sentences: list[Sentence] = []
    # A document is numbered by its first sentence, so that no natural client is empty.
    document, begins = -1, True
    for block, begins_here in blocks:
        begins |= begins_here
        comments = is_conll_u or everywhere or (marked and begins_here)
        rows = [_row(path, line, columns) for line in (_without_comments(block) if comments else block)]
        told = [row for row in rows if row]
        if told:
            document, begins = document + begins, False
            words, tags = zip(*told, strict=True)
            sentences.append(Sentence(words, to_iob2(tags), document))
    if not sentences:
        raise UserError(f"{path} holds no sentence: a line is a word and its tag, such as 'Paris B-LOC'")
    _check_words(path, sentences, columns)
    return sentences


def _lines(path: Path, encoding: str) -> Iterator[_Line]:
    """Yield the lines of a file: what ends at a line feed. Words may hold any other separator of Unicode."""
    try:
        text = path.read_bytes().decode(encoding)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): a conll folder holds train.txt, and test.txt or valid.txt, "
            "in UTF-8, or as encoding in dataset-options says"
        ) from error
    for number, line in enumerate(text.split("\n"), start=1):
        yield _Line(number, line.removesuffix("\r"))


def _blocks(lines: Iterator[_Line]) -> list[tuple[list[_Line], bool]]:
    """Return the lines of each sentence, and whether a document begins with it."""
    blocks: list[tuple[list[_Line], bool]] = []
    block: list[_Line] = []
    begins = True
    for line in (*lines, _Line(0, "")):
        is_mark = bool(_MARK.fullmatch(line.text))
        if line.text.strip(" \t") and not is_mark:
            block.append(line)
            continue
        if block:
            blocks.append((block, begins))
            block, begins = [], False
        begins |= is_mark
    return blocks


def _all_commented(blocks: Sequence[Sequence[_Line]]) -> bool:
    """Whether each of several sentences begins with a line of "#"; of one alone that says nothing."""
    return len(blocks) > 1 and all(block[0].text[0] == "#" for block in blocks)


def _without_comments(block: Sequence[_Line]) -> Iterator[_Line]:
    """Yield the lines after the comments that a sentence begins with."""
    before = True
    for line in block:
        before = before and line.text[0] == "#"
        if not before:
            yield line


def _is_conll_u(line: _Line) -> bool:
    return line.text.count("\t") == _CONLL_U_COLUMNS - 1


def _row(path: Path, line: _Line, columns: Columns) -> tuple[str, str] | None:
    """Return a line's word and tag; None where CoNLL-U has a line beside that of the word itself."""
    # In CoNLL-U a word may hold a blank.
    cells = line.text.split("\t") if _is_conll_u(line) else _CELL.findall(line.text)
    if _is_conll_u(line) and re.fullmatch(r"\d+[-.]\d+", cells[0]):  # several words in one, or one left out
        return None
    found = columns.of(cells)
    tag = _plain_tag(found[1], cells) if found else ""
    if not found or not found[0] or not is_tag(tag):
        raise UserError(
            f"{path}, line {line.number}: expected a word in column {columns.word} and in column "
            f"{columns.tag} its tag (O, B-TYPE, I-TYPE, or one of BIOES, BILOU or CoNLL-2012), got "
            f"{line.text.strip()[:100]!r}; other columns are set by word_column and tag_column in "
            "dataset-options"
        )
    return found[0], tag


def _plain_tag(cell: str, cells: Sequence[str]) -> str:
    """Return a tag; in CoNLL-U "_" is none, and the last column holds it as "ner=B-LOC" among others."""
    if len(cells) != _CONLL_U_COLUMNS or is_tag(cell):
        return cell
    named = _NER.search(cell)
    if named:
        return named[1]
    return OUTSIDE if cell == "_" or "=" in cell else cell


def _check_words(path: Path, sentences: Sequence[Sentence], columns: Columns) -> None:
    """Raise UserError where the column of words holds the words' numbers, or one text for all of them."""
    words = [word for sentence in sentences for word in sentence.words]
    advice = f"set word_column in dataset-options to the words' column, it is {columns.word}"
    if len(words) > 1 and all(re.fullmatch(r"[0-9]+", word) for word in words):
        runs = (pairwise(map(int, sentence.words)) for sentence in sentences)
        if all(after == before + 1 for run in runs for before, after in run):
            raise UserError(f"{path} has running numbers where words should be: {advice}")
    if len(words) >= _CONSTANT_AFTER and len(set(words)) == 1:
        raise UserError(f"{path} has {words[0]!r} in every line where words should be: {advice}")
