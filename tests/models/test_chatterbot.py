"""The dialogues that a package carries: what is kept of them, and that nothing held out was seen."""

import numpy as np
import pytest

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset
from models.data.parallel_text import read
from models.data.turns import SEPARATOR, plain


def load(options: str = "") -> Dataset:
    return load_dataset(TaskConfig(dataset="chatterbot", dataset_options=options, validation_fraction=0.0))


def rows(data: Examples) -> list[tuple[str, ...]]:
    pairs = zip(read(data["source"]), read(data["target"]), strict=True)
    return [tuple(map(plain, (*context.split(SEPARATOR), reply))) for context, reply in pairs]


def test_no_turn_of_what_is_held_out_is_in_training_and_no_row_is_there_twice() -> None:
    dataset = load()
    train, test = rows(dataset.train), rows(dataset.test)
    assert {turn for row in train for turn in row}.isdisjoint(turn for row in test for turn in row)
    assert len(set(train)) == len(train) > 3000
    assert len(set(test)) == len(test) > 300
    assert dataset.info["known"] > 0
    assert dataset.info["skipped"] > 0
    assert (
        "my mouse is not responding.",
        "try plugging it into another usb port or changing the batteries.",
    ) in train
    assert max(map(len, train)) == 4  # three turns, and the reply
    assert dataset.client_names == ("dutch", "english", "indonesian", "italian", "portuguese", "spanish")
    assert np.bincount(dataset.client).argmax() == 1  # type: ignore[arg-type]


def test_topics_may_be_the_clients() -> None:
    dataset = load("languages = ['german'], clients = 'topic'")
    assert dataset.client_names == ("conversations", "food", "greetings", "health", "history", "movies")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "languages = ['englisch']",
            "unknown language of dataset chatterbot 'englisch': did you mean english?",
        ),
        ("languages = [1]", "unknown language of dataset chatterbot '1': known are "),
        ("languages = []", "languages must be some of them, each once"),
        ("languages = ['thai', 'thai']", "languages must be some of them, each once"),
        ("clients = 'age'", "clients must be 'language' or 'topic', got 'age'"),
        ("context_turns = 0", "context_turns must be >= 1, got 0"),
    ],
)
def test_options_that_are_refused(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(options)
