"""Dialogues of one's own: JSON lines, each of them the turns of a dialogue."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.core.config import TaskConfig, require
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.held_out import HELD_OUT, held_out_files
from models.data.names import client_names
from models.data.parallel import held_out
from models.data.source import source_path
from models.data.table import Part
from models.data.table_json import JsonTable
from models.data.turns import SEPARATOR, Conversation, Window, dialogues, new_rows, plain, rows_of

ENDINGS = (".jsonl", ".json")
CLIENT = "client"
"""The name in a line that says whose it is, where nobody gives another."""


class DialogueTable(JsonTable):
    """A file whose objects are dialogues."""

    example = '{"turns": ["Hello.", "Hi, how can I help?"]}'

    @property
    def advice(self) -> str:
        """What to do where a name is not found."""
        return "name its own in dataset-options, such as turns = 'messages'"


def load_dialogue(
    config: TaskConfig,
    turns: str = "turns",
    text: str = "text",
    client: str = CLIENT,
    context_turns: int = 3,
    test_fraction: float = 0.1,
    max_bytes: int = 500,
    skip_longer: bool = False,
    encoding: str = "utf-8",
) -> Dataset:
    """Read "dialogue:PATH": a file of JSON objects, each a dialogue, or a folder of such files.

    `turns` names the list of turns in an object, each a text, or an object whose text is called `text`;
    `client` names whose a dialogue is, where objects say it, else a file of a folder is a client. Of a folder
    "test" (or another of HELD_OUT) is held out, as it is; beside it another is for validation. Without such
    a file, dialogues are held out by a hash of their first turn, and of these the rows of which no turn
    occurs in training. Raises UserError, with file and line, for what is no dialogue.
    """
    require(0 < test_fraction < 1, "test_fraction", "> 0 and < 1", test_fraction)
    window = Window(context_turns, max_bytes)
    window.check()
    read: dict[str, list[Conversation]] = {}
    told = False
    path = source_path(config)
    for file in _files(path):
        table = DialogueTable(file, encoding)
        whose = client if client != CLIENT or CLIENT in table.columns else ""
        told = told or bool(whose)
        read.setdefault(file.stem, []).extend(
            _conversations(table, turns, text, whose, 0 if skip_longer else max_bytes)
        )
    files = held_out_files(path, read)
    every = [each for name, of in read.items() if not (files and name in HELD_OUT) for each in of]
    held = set() if files else held_out({plain(each.turns[0]) for each in every}, test_fraction)
    train, skipped = rows_of([each for each in every if plain(each.turns[0]) not in held], window)
    ask = read[files[0]] if files else [each for each in every if plain(each.turns[0]) in held]
    test, skipped_too = rows_of(ask, window)
    validation = [rows_of(read[name], window)[0] for name in files[1:]]
    chosen = test if files else new_rows(test, train)
    if test and not chosen:
        raise UserError(
            f"dataset {config.dataset!r} leaves nothing to hold out: of {len(test)} replies each, or a turn "
            "before it, occurs in training too; give more dialogues, or hold out a file that is called test"
        )
    return dialogues(
        config.dataset,
        train,
        chosen,
        window,
        *validation,
        natural=told or len({each.client for each in every}) > 1,
        skipped=skipped + skipped_too,
        known=len(test) - len(chosen),
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [each for each in path.iterdir() if each.suffix in ENDINGS and not each.name.startswith(".")]
    if not found:
        raise UserError(f"{path} holds no file that ends in {' or '.join(ENDINGS)}: put some there")
    return sorted(found)


def _conversations(
    table: DialogueTable, turns: str, text: str, client: str, longest: int
) -> Iterator[Conversation]:
    """Yield a file's dialogues; unless `longest` is 0, UserError for a turn of more bytes."""
    columns = [turns, *([client] if client else [])]
    table.check_columns(columns)
    for part in table.parts(columns):
        owners = client_names(table, part, client) if client else [table.path.stem] * len(part.place)
        for row, owner in enumerate(owners):
            yield Conversation(_turns(table, part, row, turns, text, longest), owner)


def _turns(table: DialogueTable, part: Part, row: int, turns: str, text: str, longest: int) -> list[str]:
    place, given = part.place[row], part.cells[turns][row]
    if not isinstance(given, list) or len(given) < 2:
        raise table.refuse(place, turns, "a list of two turns or more", given)
    found = [_turn(table, place, turns, text, each) for each in given]
    for turn in found:
        if longest and (size := len(turn.encode())) > longest:
            raise UserError(
                f"{table.name}, line {place}: a turn has {size} bytes, more than max_bytes ({longest}): set "
                "it higher in dataset-options, or skip_longer = true"
            )
    return found


def _turn(table: DialogueTable, place: int, turns: str, text: str, given: Any) -> str:
    """Return a turn, which is a text, or an object that holds one."""
    turn = given.get(text) if isinstance(given, dict) else given
    if not isinstance(turn, str):
        allowed = f"texts, or objects with a text called {text!r} (option text)"
        raise table.refuse(place, turns, allowed, given)
    try:
        turn.encode()
    except UnicodeEncodeError as error:  # half of a sign, as JSON can hold it
        raise table.refuse(place, turns, "of whole characters", turn) from error
    if strange := {"\0", SEPARATOR}.intersection(turn):
        raise table.refuse(place, turns, f"without the character {ord(strange.pop()):#04x}", turn)
    if not turn.strip():
        raise table.refuse(place, turns, "texts that are not empty", given)
    return turn.strip()
