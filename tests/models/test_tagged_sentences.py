"""Sentences with entity tags: the made-up ones."""

import re

import numpy as np

from models.core.config import TaskConfig
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset
from models.data.fingerprint import data_sha256
from models.data.pii_grammar import GRAMMAR, TEST_TEMPLATES


def read(dataset: Dataset, data: Examples) -> list[list[tuple[str, str]]]:
    """Return the words and tags that the numbers stand for."""
    words, tags = dataset.info["words"], dataset.info["tags"]
    return [
        [(words[word], tags[tag]) for word, tag in zip(*pair, strict=True)]
        for pair in (
            (data["word"][row, :length], data["tag"][row, :length])
            for row, length in enumerate(data["length"].tolist())
        )
    ]


def pii() -> Dataset:
    return load_dataset(TaskConfig(dataset="pii", validation_fraction=0.0))


def test_pii_has_a_client_for_each_country() -> None:
    dataset = pii()
    assert (len(dataset.train), len(dataset.test)) == (4000, 400)
    assert dataset.client is not None
    assert np.bincount(dataset.client).tolist() == [500] * 8
    assert dataset.info["tags"] == ("O", *(f"{p}-{t}" for t in ("DATE", "LOC", "ORG", "PER") for p in "BI"))
    german = {word for row in read(dataset, dataset.train)[1000:1500] for word, _ in row}
    assert {"GmbH", "AG", "KG"} <= german
    assert not {"Inc", "Ltd", "PLC"} & german


def template(sentence: list[tuple[str, str]]) -> str:
    """Return what the sentence was made from: entities by their type, and other slots by their name."""
    parts = []
    for word, tag in sentence:
        if tag.startswith("B-"):
            parts.append(f"{{{tag[2:]}}}")
        elif tag == "O":
            slots = [name for name in ("job", "thing", "role") if word in GRAMMAR[name]]
            parts.append(f"{{{slots[0]}}}" if slots else re.sub(r"^\d+$", "{number}", word))
    return " ".join(parts)


def test_no_test_sentence_is_made_like_a_training_sentence() -> None:
    dataset = pii()
    train = {template(row) for row in read(dataset, dataset.train)}
    test = {template(row) for row in read(dataset, dataset.test)}
    assert len(train) > 1000
    assert len(test) == len(TEST_TEMPLATES)
    assert not train & test


def test_all_slots_are_filled() -> None:
    dataset = pii()
    assert not [word for word in dataset.info["words"] if "{" in word or "}" in word]


def test_pii_is_the_same_for_every_seed() -> None:
    assert data_sha256(
        load_dataset(TaskConfig(dataset="pii", seed=7, validation_fraction=0.0))
    ) == data_sha256(pii())
