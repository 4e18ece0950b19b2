"""Numbers and dates in several languages: what is said, and which patterns are held out."""

import pytest

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.numbers_dates import HELD_OUT, KINDS, PATTERNS, Phrase, say
from models.data.parallel_text import read


def load(options: str = "") -> Dataset:
    return load_dataset(TaskConfig(dataset="numbers-dates", dataset_options=options, validation_fraction=0.0))


@pytest.mark.parametrize(
    ("phrase", "english", "german", "french"),
    [
        (
            Phrase("amount", 223, unit="EUR"),
            "two hundred and twenty-three euros",
            "zweihundertdreiundzwanzig Euro",
            "deux cent vingt-trois euros",
        ),
        (Phrase("date", 3, 4), "on the third of May", "am dritten Mai", "le trois mai"),
        (Phrase("time", 4, 20), "at four twenty", "um vier Uhr zwanzig", "à quatre heures vingt"),
        (
            Phrase("duration", 12, unit="duration-week"),
            "for twelve weeks",
            "zwölf Wochen lang",
            "pendant douze semaines",
        ),
        (
            Phrase("measure", 40, unit="length-kilometer"),
            "forty kilometers",
            "vierzig Kilometer",
            "quarante kilomètres",
        ),
    ],
)
def test_what_is_said(phrase: Phrase, english: str, german: str, french: str) -> None:
    assert [say(phrase, language) for language in ("en", "de", "fr")] == [english, german, french]


def test_no_pattern_that_is_held_out_is_trained_on() -> None:
    assert not set(HELD_OUT) & set(PATTERNS)
    assert len(HELD_OUT) + len(PATTERNS) == len(KINDS) + len(KINDS) * (len(KINDS) - 1)
    for place in (0, 1):
        assert {pattern[place] for pattern in HELD_OUT} == set(KINDS)
        assert {pattern[place] for pattern in PATTERNS if len(pattern) == 2} == set(KINDS)


def test_each_language_is_a_client_and_english_is_common_to_all() -> None:
    dataset = load()
    assert dataset.client_names == ("de-en", "es-en", "fr-en", "it-en", "nl-en", "sv-en")
    assert dataset.client is not None
    assert [int((dataset.client == client).sum()) for client in range(6)] == [500] * 6
    assert len(dataset.test) == 240
    for half in (dataset.train, dataset.test):
        sources, targets = read(half["source"]), read(half["target"])
        assert not any(character.isdigit() for text in (*sources, *targets) for character in text)
        assert not any("duration-" in text for text in sources)  # what babel says where CLDR has no plural
        assert all(text == " ".join(text.split()) for text in (*sources, *targets))
    assert all(", " in text for text in read(dataset.test["target"]))
    seen = set(read(dataset.train["source"]))
    assert not seen & set(read(dataset.test["source"]))


def test_other_languages_and_sizes() -> None:
    dataset = load("languages = ['en'], into = 'de', train_pairs = 5, test_pairs = 2")
    assert (dataset.client_names, len(dataset.train), len(dataset.test)) == (("en-de",), 5, 2)
    kept = load("languages = ['en', 'fr'], into = 'de', train_pairs = 5, test_pairs = 2")
    assert read(kept.train["source"])[:5] == read(dataset.train["source"])  # whoever else is there


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("into = 'eng'", "unknown language of dataset numbers-dates 'eng': did you mean en?"),
        ("into = 'de'", "languages must be different ones, without 'de'"),
        ("languages = [1]", "unknown language of dataset numbers-dates '1': known are de, en"),
        ("languages = []", r"languages must be different ones, without 'en', got \[\]"),
        ("languages = ['fr', 'fr']", "languages must be different ones"),
        ("test_pairs = 0", "test_pairs must be >= 1, got 0"),
    ],
)
def test_options_that_are_refused(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(options)
