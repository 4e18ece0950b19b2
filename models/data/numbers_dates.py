"""Amounts, dates, times and measures spelled out in several languages, by num2words and Unicode's CLDR.

A text is one phrase, or two with a comma between. Which kinds of phrases follow one another is a pattern; no
pattern that is held out occurs in training, while each of its kinds does, in either place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from models.core.config import TaskConfig, require
from models.core.errors import unknown
from models.data.dataset import Dataset
from models.data.parallel_text import Pair, dataset_of

# num2words and babel are imported where they are used: only those who ask for this dataset wait for them.

KINDS = ("amount", "date", "time", "duration", "measure")
HELD_OUT = (
    ("amount", "duration"),
    ("date", "measure"),
    ("time", "amount"),
    ("duration", "time"),
    ("measure", "date"),
)
"""Patterns that are in no training pair; each kind is the first of one and the second of another."""
PATTERNS = (
    *((kind,) for kind in KINDS),
    *((one, other) for one in KINDS for other in KINDS if one != other and (one, other) not in HELD_OUT),
)
"""Those that training is made of."""
CURRENCIES = ("EUR", "USD", "CHF", "JPY", "MXN")
UNITS: Mapping[str, Sequence[str]] = {
    "duration": ("duration-second", "duration-minute", "duration-week", "duration-decade"),
    "measure": ("length-kilometer", "length-meter", "mass-kilogram", "volume-liter"),
}


@dataclass(frozen=True)
class Language:
    """How a language says what numbers and CLDR's names do not."""

    date: str
    time: str
    duration: str
    ordinal: bool = False
    """Whether the day of a month is a "third", or a "three"."""


LANGUAGES: Mapping[str, Language] = {
    "de": Language("am {day}n {month}", "um {hour} Uhr {minute}", "{duration} lang", ordinal=True),
    "en": Language("on the {day} of {month}", "at {hour} {minute}", "for {duration}", ordinal=True),
    "es": Language("el {day} de {month}", "a las {hour} y {minute}", "durante {duration}"),
    "fr": Language("le {day} {month}", "à {hour} heures {minute}", "pendant {duration}"),
    "it": Language("{day} {month}", "alle {hour} e {minute}", "per {duration}"),
    "nl": Language("op {day} {month}", "om {hour} uur {minute}", "{duration} lang"),
    "sv": Language("den {day} {month}", "klockan {hour} {minute}", "i {duration}", ordinal=True),
}


class Phrase(NamedTuple):
    """What is said, in no language yet."""

    kind: str
    first: int
    """The amount, the day, the hour."""
    second: int = 0
    """The month, the minute."""
    unit: str = ""
    """Of what: a currency or a unit of CLDR."""


def load_numbers_dates(
    config: TaskConfig,
    languages: Sequence[str] = ("de", "es", "fr", "it", "nl", "sv"),
    into: str = "en",
    train_pairs: int = 500,
    test_pairs: int = 40,
) -> Dataset:
    """Return texts in some `languages` with their translation `into` another; each language is a client.

    There are `train_pairs` and `test_pairs` of each, the latter of patterns that are HELD_OUT. They are the
    same for every seed. Raises UserError for a language that is not here.
    """
    for name in (*languages, into):
        if not isinstance(name, str) or name not in LANGUAGES:
            raise unknown("language of dataset numbers-dates", str(name), LANGUAGES)
    distinct = len({*languages, into}) == len(languages) + 1 and bool(languages)
    require(distinct, "languages", f"different ones, without {into!r}", [*languages])
    for key, given in (("train_pairs", train_pairs), ("test_pairs", test_pairs)):
        require(given >= 1, key, ">= 1", given)
    train: list[Pair] = []
    test: list[Pair] = []
    for client, language in enumerate(languages):
        random = Random(f"{language}-{into}")
        for pairs, patterns, count in ((train, PATTERNS, train_pairs), (test, HELD_OUT, test_pairs)):
            for _ in range(count):
                phrases = [draw(random, kind) for kind in random.choice(patterns)]
                source, target = (", ".join(say(each, name) for each in phrases) for name in (language, into))
                pairs.append(Pair(source, target, client))
    names = tuple(f"{language}-{into}" for language in languages)
    return dataset_of("numbers-dates", train, test, client_names=names)


def draw(random: Random, kind: str) -> Phrase:
    """Return a phrase of a kind."""
    if kind == "amount":
        return Phrase(kind, _number(random, 10 ** random.randint(1, 3)), unit=random.choice(CURRENCIES))
    if kind == "date":
        return Phrase(kind, _number(random, 31), random.randrange(12))
    if kind == "time":
        return Phrase(kind, _number(random, 24), _number(random, 60))
    return Phrase(kind, _number(random, 100), unit=random.choice(UNITS[kind]))


def say(phrase: Phrase, language: str) -> str:
    """Spell a phrase out."""
    from babel.dates import get_month_names
    from babel.numbers import get_currency_name
    from babel.units import format_unit

    form, (kind, first, second, unit) = LANGUAGES[language], phrase
    if kind == "amount":
        return f"{_spell(first, language)} {get_currency_name(unit, count=first, locale=language)}"
    if kind == "date":
        month = get_month_names("wide", locale=language)[second + 1]
        return form.date.format(day=_spell(first, language, form.ordinal), month=month)
    if kind == "time":
        return form.time.format(hour=_spell(first, language), minute=_spell(second, language))
    measured = format_unit(first, unit, "long", locale=language).replace(str(first), _spell(first, language))
    measured = measured.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")
    return form.duration.format(duration=measured) if kind == "duration" else measured


def _number(random: Random, below: int) -> int:
    """Draw a number from 2 on; none that ends in one but 11, which agrees with its noun in some languages."""
    while True:
        number = random.randrange(2, below)
        if number % 10 != 1 or number == 11:
            return number


def _spell(number: int, language: str, ordinal: bool = False) -> str:
    from num2words import num2words

    return str(num2words(number, lang=language, to="ordinal" if ordinal else "cardinal"))
