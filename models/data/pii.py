"""Sentences about people who do not exist, with Faker's names, firms and towns of eight countries."""

import re
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from models.core.config import TaskConfig
from models.data.dataset import Dataset
from models.data.pii_grammar import GRAMMAR, TEST_TEMPLATES
from models.data.tag_schemes import OUTSIDE
from models.data.tagged_sentences import Sentence, dataset_of

if TYPE_CHECKING:
    from faker import Faker

LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "nl_NL", "pl_PL", "sv_SE")
"""Whose names, firms, towns and ways to write a date a client has.

Not it_IT: Faker keeps its towns in a set, whose order is another in every process.
"""
TRAIN_SENTENCES, TEST_SENTENCES = 500, 50
"""Of each locale."""
_FIRST_DAY, _LAST_DAY = date(1950, 1, 1).toordinal(), date(2024, 12, 31).toordinal()
_NUMERIC_DATES = {
    "en_US": "%m/%d/%Y",
    "de_DE": "%d.%m.%Y",
    "pl_PL": "%d.%m.%Y",
    "nl_NL": "%d-%m-%Y",
    "sv_SE": "%Y-%m-%d",
}
_SLOT = re.compile(r"\{(\w+)\}")
_TOKEN = re.compile(r"['’]?\w[\w'’&/.-]*|\S")


def load_pii(config: TaskConfig) -> Dataset:
    """Return 4,000 training and 400 test sentences with names, organisations, places and dates.

    They are English sentences about people of eight countries; each country is a natural client. No test
    sentence comes from a template that a training sentence comes from. All are the same for every seed.
    """
    # Only those who ask for this dataset wait for the import.
    from faker import Faker

    train, test = [], []
    for client, locale in enumerate(LOCALES):
        fake = Faker(locale)
        fake.seed_instance(client)
        train += [_sentence(fake, GRAMMAR["sentence"], client) for _ in range(TRAIN_SENTENCES)]
        test += [_sentence(fake, TEST_TEMPLATES, client) for _ in range(TEST_SENTENCES)]
    return dataset_of("pii", train, test, natural=True, client_names=LOCALES)


def _sentence(fake: "Faker", templates: Sequence[str], client: int) -> Sentence:
    tagged = _expand(fake, fake.random.choice(templates))
    words, tags = zip(*tagged, strict=True)
    return Sentence((words[0][:1].upper() + words[0][1:], *words[1:]), tags, client)


def _expand(fake: "Faker", template: str) -> list[tuple[str, str]]:
    """Return (word, tag) pairs of a template whose slots are filled."""
    tagged: list[tuple[str, str]] = []
    for part in template.split():
        slot = _SLOT.fullmatch(part)
        if slot and slot[1] in GRAMMAR:
            tagged += _expand(fake, fake.random.choice(GRAMMAR[slot[1]]))
            continue
        filled = _TOKEN.findall(_fill(fake, slot[1])) if slot else [part]
        if slot and slot[1].isupper():
            tags = [f"B-{slot[1]}"] + [f"I-{slot[1]}"] * (len(filled) - 1)
        else:
            tags = [OUTSIDE] * len(filled)
        tagged += zip(filled, tags, strict=True)
    return tagged


def _fill(fake: "Faker", slot: str) -> str:
    if slot == "PER":
        first, last = fake.first_name(), fake.last_name()
        return str(fake.random.choices((f"{first} {last}", first, last), weights=(6, 1, 1))[0])
    if slot == "ORG":
        return fake.company()
    if slot == "LOC":
        return fake.city()
    if slot == "DATE":
        return _date(fake)
    return str(fake.random.randint(2, 10 ** fake.random.randint(1, 5)))  # "number", the only other slot


def _date(fake: "Faker") -> str:
    # Not Faker's own dates: those end today, and tomorrow would be other data.
    day = date.fromordinal(fake.random.randint(_FIRST_DAY, _LAST_DAY))
    numeric = _NUMERIC_DATES.get(fake.locales[0], "%d/%m/%Y")
    return day.strftime(fake.random.choice(("%Y-%m-%d", numeric, "%d %B %Y", "%B %d , %Y", "%B %Y")))
