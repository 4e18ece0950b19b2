"""Dialogues as pairs of texts: each turn, and the turns before it that it answers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.core.config import require
from models.data.dataset import Dataset
from models.data.parallel_text import Pair, dataset_of

KIND = "dialogue"
SEPARATOR = "\x1e"
"""Stands between the turns of a context: ASCII's record separator, which no turn holds."""


class Conversation(NamedTuple):
    """Turns that follow one another, and whose they are."""

    turns: Sequence[str]
    client: str


class Row(NamedTuple):
    """A reply with the turns before it that a network is shown."""

    context: Sequence[str]
    reply: str
    client: str
    conversation: int = 0
    """Its number, which all rows of a conversation share."""

    @property
    def plain(self) -> tuple[str, ...]:
        """All its turns, in one spelling."""
        return tuple(map(plain, (*self.context, self.reply)))


class Window(NamedTuple):
    """How much of a dialogue a network is shown."""

    turns: int
    """Turns before a reply, at most."""
    num_bytes: int
    """Bytes of these turns together, and of a reply, at most."""

    def check(self) -> None:
        """Raise UserError for what shows nothing."""
        require(self.turns >= 1, "context_turns", ">= 1", self.turns)
        require(self.num_bytes >= 1, "max_bytes", ">= 1", self.num_bytes)

    def context(self, turns: Sequence[str]) -> Sequence[str]:
        """Return the last turns that fit; the very last one always does."""
        kept = [*turns[-self.turns :]]
        while len(kept) > 1 and _size(kept) > self.num_bytes:
            del kept[0]
        return kept

    @property
    def info(self) -> Mapping[str, Any]:
        """What a dataset says of it."""
        return {"context_turns": self.turns, "max_bytes": self.num_bytes}


def window_of(dataset: Dataset) -> Window:
    """Return how much of a dialogue the examples of a dataset show."""
    return Window(dataset.info["context_turns"], dataset.info["max_bytes"])


def joined(context: Sequence[str]) -> str:
    """Return the turns of a context as one text."""
    return SEPARATOR.join(context)


def plain(turn: str) -> str:
    """Return a turn in one spelling: turns that differ in case and blanks alone are the same one."""
    return " ".join(turn.casefold().split())


def rows_of(conversations: Iterable[Conversation], window: Window) -> tuple[list[Row], int]:
    """Return a row for each turn that answers another, and how many are left out as too long.

    Those are replies of more than `window.num_bytes`, and replies to such a turn.
    """
    rows: list[Row] = []
    too_long = 0
    for number, (turns, client) in enumerate(conversations):
        for place in range(1, len(turns)):
            if max(_size([turn]) for turn in turns[place - 1 : place + 1]) > window.num_bytes:
                too_long += 1
            else:
                rows.append(Row(window.context(turns[:place]), turns[place], client, number))
    return rows, too_long


def new_rows(test: Iterable[Row], train: Iterable[Row]) -> list[Row]:
    """Return the rows to hold out of which no turn occurs in a row to train on, in whatever spelling.

    Else a network could have learned by heart what it is asked for.
    """
    known = {turn for row in train for turn in row.plain}
    return [row for row in test if known.isdisjoint(row.plain)]


def distinct(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the first of all rows that are the same in whatever spelling."""
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        if row.plain not in seen:
            seen.add(row.plain)
            yield row


def dialogues(
    name: str,
    train: Sequence[Row],
    test: Sequence[Row],
    window: Window,
    validation: Sequence[Row] = (),
    *,
    natural: bool,
    skipped: int = 0,
    known: int = 0,
) -> Dataset:
    """Return rows as a dataset; of natural clients, each is numbered by the place of its name.

    `skipped` rows were left out as too long, and `known` that were to be held out, as a turn of theirs occurs
    in training.
    """
    clients = sorted({row.client for row in train})
    number = {client: place for place, client in enumerate(clients)}
    return dataset_of(
        name,
        [Pair(joined(row.context), row.reply, number[row.client]) for row in train],
        [Pair(joined(row.context), row.reply) for row in test],
        [Pair(joined(row.context), row.reply) for row in validation],
        client_names=tuple(clients) if natural else (),
        skipped=skipped,
        kind=KIND,
        info={**window.info, "known": known},
        group=np.array([row.conversation for row in train], dtype=np.int64),
    )


def _size(turns: Sequence[str]) -> int:
    return len(joined(turns).encode())
