"""How fast simulated clients are, and when they are there: pure functions of the seed, or a file.

Time is simulated: seconds of an imagined federation, which pass by no clock. Nothing waits for them.
"""

import csv
import io
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import Field, model_validator

from models.core.config import Config, check_keys, parse_options, read, require
from models.core.errors import UserError
from models.core.seeds import derive_seed
from models.data.hashed_files import hash_files
from server.config import ServerConfig

LARGEST_SECONDS = 1e9
"""Simulated seconds that anything may take: 30 years, and no sum of them is infinite."""
KEPT = 10_000
"""Clients whose numbers are kept, as drawing them anew takes a few microseconds."""
T = TypeVar("T", bound=Config)
Spans = list[tuple[float, float]]
"""From when to when a client is there, in order, without overlap."""


class Speeds(Config):
    """`client-speeds`: what a client needs for its work."""

    seconds: Annotated[float, Field(gt=0, le=LARGEST_SECONDS)] = 0.01
    """Simulated seconds that a client of usual speed takes for one example."""
    spread: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of the logarithm of clients' seconds (log-normal); 0 = all are equally fast."""
    slow: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the clients, drawn from the seed, that are slower."""
    times: Annotated[float, Field(ge=1, le=LARGEST_SECONDS)] = 10.0
    """How often the seconds of the others those take."""
    latency: Annotated[float, Field(ge=0, le=LARGEST_SECONDS)] = 0.0
    """Simulated seconds that messages to a client and back take, whatever it trains."""
    file: str = ""
    """A CSV file with the columns client and seconds, for every client; instead of the four above."""

    @model_validator(mode="after")
    def _a_file_says_it_all(self) -> Self:
        drawn = self.model_fields_set & {"seconds", "spread", "slow", "times"}
        alone = not (self.file and drawn)
        require(alone, "file in client-speeds", f"given without {', '.join(sorted(drawn))}", self.file)
        return self


class Presence(Config):
    """`availability`: when clients are there."""

    share: Annotated[float, Field(ge=1e-6, le=1)] = 1.0
    """Part of each period in which a client is there; where the part begins is drawn from the seed."""
    period: Annotated[float, Field(ge=1, le=LARGEST_SECONDS)] = 86_400.0
    """Simulated seconds after which clients come again."""
    file: str = ""
    """A CSV file with the columns client, from and to, in seconds of a period: when a client is there. One
    that it does not name is always there."""

    @model_validator(mode="after")
    def _a_file_says_it_all(self) -> Self:
        alone = not (self.file and "share" in self.model_fields_set)
        require(alone, "file in availability", "given without share", self.file)
        return self


@dataclass(frozen=True)
class Profiles:
    """The clients of a simulation, as time sees them."""

    seconds_of: Callable[[int], float]
    """Client -> simulated seconds an example."""
    latency: float
    spans_of: Callable[[int], Spans] | None
    """Client -> when it is there within a period; None where all clients always are."""
    period: float
    files: dict[str, str]
    """Key -> SHA-256 of the file that it names."""
    examples_of: Callable[[int], int]
    """Client -> examples that it trains on in a round, all epochs together."""

    def is_there(self, client: int, now: float) -> bool:
        """Return whether a client is there at a time."""
        return self.spans_of is None or self.next_arrival(client, now) == now

    def next_arrival(self, client: int, now: float) -> float:
        """Return when a client is there, from `now` on; infinity for one that never is."""
        if self.spans_of is None:
            return now
        spans = self.spans_of(client)
        start = math.floor(now / self.period) * self.period
        for turn in (start, start + self.period):
            for begin, end in spans:
                if turn + end > now:
                    return max(now, turn + begin)
        return math.inf

    def stays(self, client: int, now: float) -> Spans:
        """Return from when to when a client is there in the period that begins now."""
        spans = [(0.0, self.period)] if self.spans_of is None else self.spans_of(client)
        start = math.floor(now / self.period) * self.period
        found = [
            (start + turn + begin, start + turn + end) for turn in (0.0, self.period) for begin, end in spans
        ]
        return [(max(begin, now), end) for begin, end in found if end > now and begin <= now + self.period]

    def end_of(self, client: int, now: float) -> float:
        """Return when a client that is given work is done with it; it rests while it is away."""
        left = self.latency + self.examples_of(client) * self.seconds_of(client)
        if self.spans_of is None:
            return now + left
        spans = self.spans_of(client)
        a_period = sum(end - begin for begin, end in spans)
        whole = max(0, math.floor(left / a_period) - 1)  # one less: it may have begun within a span
        start, left = math.floor(now / self.period) * self.period, left - whole * a_period
        at = now
        while True:
            for begin, end in spans:
                begin, end = max(at, start + begin), start + end
                if end <= begin:
                    continue
                if left <= end - begin:
                    return begin + left + whole * self.period
                left -= end - begin
            start += self.period
            at = start


def profiles_of(
    config: ServerConfig, seed: int, num_clients: int, examples_of: Callable[[int], int]
) -> Profiles | None:
    """Return the clients' profiles; None where the run does not simulate time.

    Raises UserError for options that do not fit, and for a file that does not say what is needed.
    """
    if not (config.client_speeds or config.availability or config.buffer_size):
        return None
    speeds = _options(Speeds, "client-speeds", config.client_speeds)
    presence = _options(Presence, "availability", config.availability)
    files = {"client-speeds": speeds.file, "availability": presence.file}
    return Profiles(
        lru_cache(KEPT)(_seconds(speeds, seed, num_clients)),
        speeds.latency,
        _spans(presence, seed, num_clients),
        presence.period,
        {key: str(hash_files([Path(file)])[0].sha256) for key, file in files.items() if file},
        examples_of,
    )


def _options(cls: type[T], key: str, text: str) -> T:
    options = parse_options(key, text)
    try:
        check_keys(options, cls)
        return read(cls, options)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _seconds(speeds: Speeds, seed: int, num_clients: int) -> Callable[[int], float]:
    if speeds.file:
        rows = _rows("client-speeds", speeds.file, ("client", "seconds"), num_clients)
        given: dict[int, float] = {}
        for client, (seconds,) in rows:
            if client in given or not 0 < seconds <= LARGEST_SECONDS:
                raise UserError(
                    f"client-speeds: {speeds.file} must name each client once, with seconds > 0 and at most "
                    f"{LARGEST_SECONDS:g}, not so client {client}"
                )
            given[client] = seconds
        if missing := [client for client in range(num_clients) if client not in given]:
            raise UserError(f"client-speeds: {speeds.file} must name every client, and lacks {missing[0]}")
        return given.__getitem__
    draw = random.Random(derive_seed(seed, "slow clients"))
    slow = frozenset(draw.sample(range(num_clients), round(speeds.slow * num_clients)))

    def drawn(client: int) -> float:
        seconds = speeds.seconds * (speeds.times if client in slow else 1.0)
        if not speeds.spread:
            return seconds
        normal = random.Random(derive_seed(seed, "speed", client)).gauss(0.0, 1.0)
        return seconds * math.exp(speeds.spread * normal)

    return drawn


def _spans(presence: Presence, seed: int, num_clients: int) -> Callable[[int], Spans] | None:
    period = presence.period
    if presence.file:
        given: dict[int, Spans] = {}
        for client, (begin, end) in _rows(
            "availability", presence.file, ("client", "from", "to"), num_clients
        ):
            spans = given.setdefault(client, [])
            last = spans[-1][1] if spans else 0.0
            if not last <= begin < end <= period:
                raise UserError(
                    f"availability: {presence.file} must hold from < to of one client in order, within 0 to "
                    f"{period:g} s (period), got {begin:g} to {end:g} for client {client}"
                )
            spans.append((begin, end))
        always = [(0.0, period)]
        return lambda client: given.get(client, always)
    if presence.share == 1.0:
        return None
    there = presence.share * period

    def drawn(client: int) -> Spans:
        begin = random.Random(derive_seed(seed, "presence", client)).random() * period
        end = begin + there
        return [(begin, end)] if end <= period else [(0.0, end - period), (begin, period)]

    return lru_cache(KEPT)(drawn)


def _rows(
    key: str, file: str, columns: tuple[str, ...], num_clients: int
) -> Iterable[tuple[int, list[float]]]:
    """Yield the rows of a CSV file: a client, and its numbers.

    Raises UserError for a file that is not so.
    """
    path = Path(file)
    require(path.is_absolute(), f"{key}: file", "an absolute path", file)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}: {file} cannot be read ({error})") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        yield from _checked_rows(key, file, columns, num_clients, rows)
    except csv.Error as error:
        raise UserError(f"{key}: line {rows.line_num} of {file} is no CSV ({error})") from error


def _checked_rows(
    key: str, file: str, columns: tuple[str, ...], num_clients: int, rows: "csv.DictReader[str]"
) -> Iterable[tuple[int, list[float]]]:
    if missing := set(columns) - set(rows.fieldnames or ()):
        wanted = ", ".join(columns)
        raise UserError(
            f"{key}: {file} must have the columns {wanted}, and lacks {', '.join(sorted(missing))}"
        )
    for row in rows:
        yield _row(row, columns, num_clients, f"{key}: line {rows.line_num} of {file}")


def _row(
    row: Mapping[str, str | None], columns: tuple[str, ...], num_clients: int, where: str
) -> tuple[int, list[float]]:
    try:
        client, *numbers = (float(row[column] or "") for column in columns)
    except ValueError:
        given = ", ".join(f"{column} = {row[column]!r}" for column in columns)
        raise UserError(f"{where} must hold numbers, got {given}") from None
    fits = client.is_integer() and 0 <= client < num_clients and all(map(math.isfinite, numbers))
    require(fits, where, f"of a client from 0 to {num_clients - 1} and finite", client)
    return int(client), numbers
