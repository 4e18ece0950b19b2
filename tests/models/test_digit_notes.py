"""Digits with notes: what is hidden and smudged, and which clients lack one of the two."""

import numpy as np
import pytest
import torch

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.datasets import load_dataset
from models.data.digit_notes import CLIENTS, LANGUAGES
from models.data.modalities import read_texts


def load(options: str = ""):
    return load_dataset(
        TaskConfig(
            dataset="digit-notes", dataset_options=options, num_clients=CLIENTS, validation_fraction=0.0
        )
    )


def test_half_of_each_picture_and_many_letters_cannot_be_seen() -> None:
    dataset = load()
    assert (len(dataset.train), len(dataset.test)) == (4000, 1000)
    image = dataset.train["image"]
    assert image.shape[1:] == (1, 14, 14)
    halves = [image[:, 0, :7], image[:, 0, 7:], image[:, 0, :, :7], image[:, 0, :, 7:]]
    dark = torch.stack([half.flatten(1).amax(1) == 0 for half in halves], 1)
    assert dark.any(1).all()
    assert [0.2 < float(share) < 0.35 for share in dark.float().mean(0)] == [True] * 4
    texts = read_texts(dataset.train["text"])
    words = [text.rpartition(": ")[2] for text in texts]
    assert 0.55 < sum(word.count("_") for word in words) / sum(map(len, words)) < 0.65
    assert (dataset.train["has_image"].min(), dataset.test["has_text"].min()) == (1, 1)
    lengths = {
        len(word) for word, label in zip(words, dataset.train["label"].tolist(), strict=True) if label == 8
    }
    assert lengths == {4, 5}, "acht, eight, ocho, huit, acht, osiem"


def test_a_language_is_that_of_two_clients() -> None:
    dataset = load()
    assert dataset.client_names[:7] == ("de-0", "en-1", "es-2", "fr-3", "nl-4", "pl-5", "de-6")
    assert len(dataset.client_names) == 2 * len(LANGUAGES)
    assert sorted(set(np.bincount(dataset.client).tolist())) == [333, 334]
    words = [text.rpartition(": ")[2] for text in read_texts(dataset.train["text"])]
    sevens = {number: list[int]() for number in range(CLIENTS)}
    for word, owner, label in zip(
        words, dataset.client.tolist(), dataset.train["label"].tolist(), strict=True
    ):
        if label == 7:
            sevens[owner].append(len(word))
    short = [sum(length == 4 for length in sevens[number]) / len(sevens[number]) for number in range(CLIENTS)]
    assert min(short[3], short[9]) > 0.6, "sept has four letters, in French alone"
    assert max(short[number] for number in range(CLIENTS) if number % 6 != 3) < 0.2


def test_some_clients_lack_one_and_some_rows_do() -> None:
    dataset = load("image_only = 4, text_only = 3, missing = 0.5")
    has = [dataset.train[f"has_{name}"].numpy() for name in ("image", "text")]
    assert (has[0] | has[1]).all()
    for client in range(CLIENTS):
        own = [float(each[dataset.client == client].mean()) for each in has]
        if client < 4:
            assert own == [1, 0]
        elif client >= 9:
            assert own == [0, 1]
        else:
            assert own == pytest.approx([0.75, 0.75], abs=0.06)
    assert not dataset.train["image"][has[0] == 0].any()
    assert not dataset.train["text"][has[1] == 0].any()
    whole = load()
    assert torch.equal(dataset.train["image"][has[0] == 1], whole.train["image"][has[0] == 1])
    assert torch.equal(dataset.test["text"], whole.test["text"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("image_only = 10, text_only = 3", "image_only and text_only must be >= 0 and together at most 12"),
        ("missing = 2.0", "missing must be 0 to 1, got 2.0"),
    ],
)
def test_what_does_not_fit_is_refused(options: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(options)
    assert message in str(error.value)
