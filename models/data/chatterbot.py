"""Small talk, questions and their answers in several languages, which a package carries."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.core.config import TaskConfig, require
from models.core.errors import UserError, unknown
from models.data.dataset import Dataset
from models.data.parallel import held_out
from models.data.turns import Conversation, Window, dialogues, distinct, new_rows, plain, rows_of

LANGUAGES = ("dutch", "english", "indonesian", "italian", "portuguese", "spanish")
"""The largest that are written in Latin letters, so that clients share most bytes."""
TEST_FRACTION = 0.1
LANGUAGE, TOPIC = "language", "topic"


def load_chatterbot(
    config: TaskConfig,
    languages: Sequence[str] = LANGUAGES,
    clients: str = LANGUAGE,
    context_turns: int = 3,
    max_bytes: int = 120,
) -> Dataset:
    """Return the dialogues of the package chatterbot-corpus in some `languages`, each of them a client.

    With `clients = "topic"`, a client is a topic, as the package's files are called. Of rows that are the
    same but for case and blanks the first is kept: some dialogues stand there a hundred times. Replies of
    more than `max_bytes`, such as programs, are left out, and so is what answers them. About a tenth
    of the openings is held out by a hash, with every dialogue that begins so, and of those each row of which
    no turn occurs in training. Raises UserError for a language that is not there.
    """
    require(clients in (LANGUAGE, TOPIC), "clients", f"{LANGUAGE!r} or {TOPIC!r}", clients)
    window = Window(context_turns, max_bytes)
    window.check()
    folder = _folder()
    known = sorted(each.name for each in folder.iterdir() if each.is_dir())
    for language in languages:
        if not isinstance(language, str) or language not in known:
            raise unknown("language of dataset chatterbot", str(language), known)
    once = bool(languages) and len(set(languages)) == len(languages)
    require(once, "languages", "some of them, each once", [*languages])
    read = [each for language in sorted(languages) for each in _conversations(folder / language, clients)]
    openings = held_out({plain(each.turns[0]) for each in read}, TEST_FRACTION)
    halves = [
        rows_of([each for each in read if (plain(each.turns[0]) in openings) is half], window)
        for half in (False, True)
    ]
    train, test = ([*distinct(rows)] for rows, _ in halves)
    chosen = new_rows(test, train)
    return dialogues(
        "chatterbot",
        train,
        chosen,
        window,
        natural=True,
        skipped=sum(skipped for _, skipped in halves),
        known=len(test) - len(chosen),
    )


def _conversations(folder: Path, clients: str) -> Iterator[Conversation]:
    """Yield the dialogues of a language's files."""
    for path in sorted(folder.glob("*.yml")):
        client = path.stem if clients == TOPIC else folder.name
        for each in _yaml(path)["conversations"]:
            # A few items are single texts, or hold nested ones.
            turns = [turn.strip() for turn in each if isinstance(turn, str)] if isinstance(each, list) else []
            if len(turns) > 1 and all(turns):
                yield Conversation(turns, client)


def _yaml(path: Path) -> Any:
    import yaml

    # Every value stays the text that it is: an answer such as "no" or "42" would become something else.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    return yaml.load(path.read_bytes(), loader)


def _folder() -> Path:
    spec = find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "dataset 'chatterbot' needs the package chatterbot-corpus: pip install chatterbot-corpus"
        )
    return Path(spec.submodule_search_locations[0], "data")
