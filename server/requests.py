"""What a strategy addresses to clients: checked, and in the one form in which requests travel.

A strategy makes its messages as Flower allows: with records under any keys, any number of them, to any of the
clients, to one of them twice. What polyfed cannot do as Flower would is refused here, by name.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from logging import INFO, WARNING
from typing import Any

from flwr.app import Message, MessageType, RecordDict

from models.core.config import read
from models.core.errors import UserError
from models.core.local_work import HONOURED, LocalWork
from models.core.log import log
from strategies.rule import LocalRule
from strategies.wire.form import ARRAYS, CONFIG, in_form
from strategies.wire.train_config import SERVER_ROUND

ACTIONS = (MessageType.TRAIN, MessageType.EVALUATE)
"""What clients can be asked to do."""
OTHER_NAMES = {"lr": "learning-rate", "epochs": "local-epochs", "num-epochs": "local-epochs"}
"""How other programs call the keys that are honoured."""


@dataclass(frozen=True)
class Request:
    """What one client is asked, by one message or by several that ask the same."""

    content: RecordDict
    """A record of arrays and a record of config."""
    messages: list[Message] = field(default_factory=list)
    """Those of the strategy, which are all answered; a client acts once for them all."""


@dataclass(frozen=True)
class Wave:
    """Requests that go out together: of one kind, and at most one to each client."""

    message_type: str
    requests: dict[int, Request] = field(default_factory=dict)
    """Client -> what it is asked, in the strategy's order."""

    @property
    def training(self) -> bool:
        """Whether the clients are asked to train."""
        return self.message_type == MessageType.TRAIN

    @property
    def repeated(self) -> tuple[int, ...]:
        """The clients that are asked by several messages, once for each message but the first."""
        return tuple(client for client, each in self.requests.items() for _ in each.messages[1:])


class Requests:
    """Reads the messages of one strategy; warns once of each thing that nobody heeds."""

    def __init__(
        self,
        strategy: str = "the strategy",
        weights: Collection[str] = (),
        num_clients: int | None = None,
        rules: Sequence[Callable[[Mapping[str, object]], LocalRule]] = (),
        arrays_key: str = ARRAYS,
    ) -> None:
        self.strategy, self.weights, self.num_clients, self.rules = strategy, weights, num_clients, rules
        self.arrays_key = arrays_key
        self._heeded = {SERVER_ROUND}
        """Words that are known to be read."""
        self._warned: set[str] = set()
        self._has_repeated = False

    def read(self, messages: Iterable[Message]) -> list[Wave]:
        """Return what the messages ask, in waves: the second question to a client goes out after the first.

        Raises UserError for what cannot be asked.
        """
        waves: list[Wave] = []
        formed: dict[tuple[int, ...], RecordDict] = {}
        checked = set[int]()
        for message in messages:
            message_type, client = self._action(message), self._client(message)
            records = tuple(map(id, message.content.values()))
            if records not in formed:
                formed[records] = self._form(message.content)
            content = formed[records]
            if message_type == MessageType.TRAIN and id(content) not in checked:
                self._check_work(content, client)
                checked.add(id(content))
            place = _place(waves, message_type, client, content)
            place.messages.append(message)
        return waves

    def warn(self, waves: Sequence[Wave]) -> None:
        """Say, once a run, what clients are told and nothing heeds, and that some are asked several times."""
        seen: set[int] = set()
        for wave in waves:
            for client, request in wave.requests.items():
                if id(request.content) not in seen:
                    seen.add(id(request.content))
                    self._warn_unread(request.content.config_records[CONFIG], wave.training)
                times = len(request.messages)
                if times > 1 and not self._has_repeated:
                    self._has_repeated = True
                    does = "trains once and counts" if wave.training else "evaluates once and answers"
                    log(
                        INFO,
                        "%s asks client %d %d times: it %s %d times",
                        self.strategy,
                        client,
                        times,
                        does,
                        times,
                    )

    def _action(self, message: Message) -> str:
        asked = message.metadata.message_type.removesuffix(".default")
        if asked not in ACTIONS:
            raise UserError(
                f"strategy {self.strategy} sends messages of type {message.metadata.message_type!r}, and "
                f"clients have no such action: they have {' and '.join(ACTIONS)}; let a local rule, or the "
                "config that it sends, make the difference"
            )
        return asked

    def _client(self, message: Message) -> int:
        client = message.metadata.dst_node_id
        if self.num_clients is not None and not 0 <= client < self.num_clients:
            raise UserError(
                f"strategy {self.strategy} addresses client {client}, and there are {self.num_clients}, from "
                "0 on: take them from grid.get_node_ids()"
            )
        return client

    def _form(self, content: RecordDict) -> RecordDict:
        try:
            return in_form(content, self.weights, self.arrays_key)
        except ValueError as error:
            raise UserError(f"strategy {self.strategy} {error}") from error

    def _check_work(self, content: RecordDict, client: int) -> None:
        try:
            read(LocalWork, content.config_records[CONFIG])  # type: ignore[arg-type]  # which it checks
        except UserError as error:
            raise UserError(f"strategy {self.strategy}, to client {client}: {error}") from error

    def _warn_unread(self, words: Mapping[str, object], training: bool) -> None:
        heeded = {*self._heeded, *(HONOURED if training else ())}
        if new := words.keys() - heeded - self._warned:
            self._heeded |= read_by(self.rules, words)
            for key in sorted(new - self._heeded):
                self._warned.add(key)
                log(WARNING, "%s", self._unread(key, words[key], training))

    def _unread(self, key: str, value: object, training: bool) -> str:
        said = repr(value)
        said = (
            f"{self.strategy} tells clients {key} = {said if len(said) <= 40 else '...'}, which nothing heeds"
        )
        if not training:
            return f"{said} in evaluation"
        plain = key.lower().replace("_", "-")
        close = OTHER_NAMES.get(plain) or next(iter(get_close_matches(plain, HONOURED, n=1)), "")
        meant = f"did you mean {close}? " if close else ""
        return f"{said}: {meant}they heed {', '.join(HONOURED)}, and what a local rule reads"


def _place(waves: list[Wave], message_type: str, client: int, content: RecordDict) -> Request:
    """Return the request that a message belongs to: one that asks the same, or a new one."""
    for wave in waves:
        if wave.message_type != message_type:
            continue
        request = wave.requests.setdefault(client, Request(content))
        if request.content is content or _same(request.content, content):
            return request
    waves.append(Wave(message_type, {client: Request(content)}))
    return waves[-1].requests[client]


def _same(one: RecordDict, other: RecordDict) -> bool:
    return one[ARRAYS] is other[ARRAYS] and one[CONFIG] == other[CONFIG]


class _Watched(Mapping[str, object]):
    """Words that remember which of them were read."""

    def __init__(self, words: Mapping[str, object]) -> None:
        self.words = words
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> object:
        self.read.add(key)
        return self.words[key]

    def __iter__(self) -> Iterator[str]:
        self.read |= self.words.keys()
        return iter(self.words)

    def __len__(self) -> int:
        return len(self.words)


def read_by(
    rules: Sequence[Callable[[Mapping[str, object]], LocalRule]], words: Mapping[str, object]
) -> set[str]:
    """Return which of the words local rules read as they are made; all, of one that keeps them for later."""
    heeded: set[str] = set()
    for rule in rules:
        watched = _Watched(words)
        try:
            made: Any = rule(watched)
        except Exception:  # which every client will tell, with its traceback
            made = None
        kept = made is not None and any(value is watched for value in vars(made).values())
        heeded |= words.keys() if kept else watched.read
    return heeded
