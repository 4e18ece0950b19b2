"""Digits on cluttered canvases: whose rows they are, where their boxes lie, and who holds which."""

from typing import Any

import numpy as np
import pytest
import torch

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.toml import quoted
from models.data import datasets, digit_scenes
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset
from models.data.digit_scenes import load_digit_scenes

SMALL: dict[str, Any] = {"images_per_client": 5, "test_images": 6}
INK = {"train": 200, "test": 100}


def inked(shade: int) -> Examples:
    """Digits that are a bar each, 10 pixels high and 2 to 11 wide, of one shade."""
    image = torch.zeros(10, 1, 28, 28, dtype=torch.uint8)
    for digit in range(10):
        image[digit, :, 5:15, 8 : 10 + digit] = shade
    return Examples({"image": image, "label": torch.arange(10)})


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = (inked(shade) for shade in INK.values())
    toy = Dataset("toy", "images", train, test, label="label", classes=tuple("0123456789"))
    monkeypatch.setattr(digit_scenes, "mnist_5k", lambda: toy)
    plain = {name: lambda rng, size: np.zeros((size, size), np.uint8) for name in digit_scenes.CLUTTERS}
    monkeypatch.setattr(digit_scenes, "CLUTTERS", plain)


@pytest.mark.usefixtures("bars")
def test_a_box_is_where_the_ink_is_and_each_half_has_its_own_rows() -> None:
    dataset = load_digit_scenes(TaskConfig(), **SMALL)
    for half, shade in ((dataset.train, INK["train"]), (dataset.test, INK["test"])):
        left_out = half["image"][:, 0].clone()
        for row, place in (half["class"] >= 0).nonzero().tolist():
            left, top, right, bottom = half["box"][row, place].int().tolist()
            inside = half["image"][row, 0, top:bottom, left:right]
            assert len(inside.unique()) == 1  # a digit, and nothing of another
            assert 0.6 * shade - 1 <= inside[0, 0] <= shade
            assert 13 <= bottom - top <= 29
            left_out[row, top:bottom, left:right] = 0
        assert not left_out.any()
    assert ((dataset.train["class"] >= 0).sum(1) >= 1).all()


@pytest.mark.usefixtures("bars")
def test_a_client_is_a_clutter_and_half_of_the_digits() -> None:
    dataset = load_digit_scenes(TaskConfig(), clutters=["lines", "noise"], own=1, **SMALL)
    assert dataset.client_names == ("lines 0-4", "lines 5-9", "noise 0-4", "noise 5-9")
    assert dataset.client is not None
    assert dataset.client.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    for client in range(4):
        classes = dataset.train["class"][dataset.client == client]
        assert {digit // 5 for digit in classes[classes >= 0].tolist()} == {client % 2}
    assert {digit // 5 for digit in dataset.test["class"].flatten().tolist() if digit >= 0} == {0, 1}


@pytest.mark.usefixtures("bars")
def test_it_follows_from_its_own_seed_alone() -> None:
    def images(run_seed: int, seed: int) -> torch.Tensor:
        return load_digit_scenes(TaskConfig(seed=run_seed), **SMALL, seed=seed).train["image"]

    assert torch.equal(images(1, 0), images(2, 0))
    assert not torch.equal(images(1, 0), images(1, 1))


def test_its_digits_are_all_rows_whatever_validation_is_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TaskConfig] = []
    monkeypatch.setattr(datasets, "load_dataset", asked.append)
    digit_scenes.mnist_5k()
    assert [(config.dataset, config.validation_fraction) for config in asked] == [("mnist-5k", 0.0)]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"clutters": ["nois"]}, "unknown clutter of dataset digit-scenes 'nois': did you mean noise?"),
        ({"clutters": [1]}, "unknown clutter of dataset digit-scenes '1': known are blobs, lines, noise"),
        ({"clutters": ["lines", "lines"]}, r"clutters must be different ones, one at least, got \['lines'"),
        ({"size": 16}, "size must be 32 to 512, got 16"),
        ({"own": 1.5}, "own must be 0 to 1, got 1.5"),
        ({"test_images": 0}, "test_images must be >= 1, got 0"),
        ({"most_digits": 0}, "most_digits must be 1 to 20, got 0"),
    ],
)
def test_what_does_not_fit_is_one_line(options: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line):
        load_dataset(TaskConfig(dataset="digit-scenes", dataset_options=quoted(options)))
