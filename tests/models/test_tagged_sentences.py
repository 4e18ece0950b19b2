"""Sentences with entity tags: the made-up ones, and CoNLL column files."""

import re
from pathlib import Path

import numpy as np
import pytest
from places import CONLL

from models.core.config import TaskConfig
from models.core.errors import UserError
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
    return load_dataset(TaskConfig(dataset="pii"))


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
    assert data_sha256(load_dataset(TaskConfig(dataset="pii", seed=7))) == data_sha256(pii())


def test_a_folder_of_column_files() -> None:
    dataset = load_dataset(TaskConfig(dataset=f"conll:{CONLL}"))
    assert dataset.kind == "tagged-sentences"
    assert dataset.info["tags"] == ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
    train, test = read(dataset, dataset.train), read(dataset, dataset.test)
    assert train[0] == [
        ("Ada", "B-PER"),
        ("Lovelace", "I-PER"),
        ("wrote", "O"),
        ("to", "O"),
        ("Zürich", "B-LOC"),
        (".", "O"),
    ]
    assert [len(row) for row in train] == [6, 2, 8, 6, 5, 7]
    assert [len(row) for row in test] == [6, 5]
    assert dataset.train["word"].shape == (6, 8)
    assert dataset.train["word"][1].tolist()[2:] == dataset.train["tag"][1].tolist()[2:] == [-1] * 6
    # Three documents; the second of the four marks is that of a document without a sentence.
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 0, 1, 1, 2, 2]


def write(folder: Path, **files: str) -> TaskConfig:
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return TaskConfig(dataset="conll:.", data_dir=str(folder))


def test_valid_is_held_out_where_there_is_no_test(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, train="a O", valid="b\tB-X\nc\tI-X\n\n\n"))
    assert read(dataset, dataset.test) == [[("b", "B-X"), ("c", "I-X")]]
    assert dataset.client is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Paris", "expected a word and a BIO tag (O, B-TYPE or I-TYPE), got 'Paris'"),
        ("Paris NNP S-LOC", "expected a word and a BIO tag (O, B-TYPE or I-TYPE), got 'Paris NNP S-LOC'"),
        ("Paris B-", "expected a word and a BIO tag (O, B-TYPE or I-TYPE), got 'Paris B-'"),
    ],
)
def test_a_line_that_is_not_understood_is_named(tmp_path: Path, line: str, message: str) -> None:
    config = write(tmp_path, train=f"a O\n\n{line}\n", test="a O")
    with pytest.raises(UserError) as error:
        load_dataset(config)
    assert str(error.value) == f"{tmp_path}/train.txt, line 3: {message}"


def test_files_that_are_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.txt cannot be read .*: a conll folder holds train.txt, and"):
        load_dataset(TaskConfig(dataset=f"conll:{tmp_path}"))
    with pytest.raises(UserError, match=r"test.txt holds no sentence: a line is a word and its tag"):
        load_dataset(write(tmp_path, train="a O", test="\n\n"))
