"""Time series in windows: exact cuts, nothing of the held-out steps in training."""

import datetime
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.core.config import TaskConfig
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.series import WINDOW, Cut, Series, windows_of


def steps(num: int, start: float = 0.0, name: str = "one") -> Series:
    """Values start, start + 1 ... at the times 100, 101 ..."""
    numbers = np.arange(num, dtype=np.float64)
    return Series(name, 100 + numbers, start + numbers)


def toy(*series: Series) -> Dataset:
    return windows_of("toy", series, unit="m", dates=False)


def test_windows_and_targets_are_cut_in_the_order_of_time() -> None:
    dataset = toy(steps(50), steps(40, start=1000, name="two"))
    # Of 50 values the last 10 are held out, and the first 30 have no whole window before them.
    assert dataset.train["target"].tolist() == [*range(30, 40), 1030, 1031]
    assert dataset.test["target"].tolist() == [*range(40, 50), *range(1032, 1040)]
    assert dataset.train["window"][0].tolist() == list(range(30))
    assert dataset.train["window"][11].tolist() == list(range(1001, 1031))
    assert dataset.test["window"][-1].tolist() == list(range(1009, 1039))
    assert dataset.train["time"].tolist() == [*range(130, 140), 130, 131]
    assert dataset.client is not None
    assert dataset.client.tolist() == [0] * 10 + [1] * 2
    assert dataset.test["series"].tolist() == [0] * 10 + [1] * 8
    told = {"series": ("one", "two"), "unit": "m", "dates": False, "horizon": 1, "longest_step": 1.0}
    assert dataset.info == told


def test_scale_is_the_deviation_of_the_training_values_of_each_series() -> None:
    dataset = toy(steps(50), replace(steps(40), value=np.full(40, 7.0)))
    # 0, 1 ... 39 deviate by sqrt((40 ** 2 - 1) / 12); a constant is divided by nothing.
    assert dataset.train["scale"][0] == pytest.approx(np.sqrt(1599 / 12))
    assert dataset.test["scale"].tolist() == [dataset.train["scale"][0]] * 10 + [1.0] * 8


def test_training_rows_know_nothing_of_the_held_out_steps() -> None:
    series = steps(50)
    other = replace(series, value=np.where(series.time < 140, series.value, 1e9))
    before, after = toy(series), toy(other)
    assert all(torch.equal(before.train[name], after.train[name]) for name in before.train.columns)
    assert not torch.equal(before.test["target"], after.test["target"])


@pytest.mark.parametrize(
    ("name", "names"), [("stocks", ("AAPL", "FB", "GOOG", "IBM", "MSFT")), ("sine", None)]
)
def test_packaged_series(name: str, names: tuple[str, ...] | None) -> None:
    dataset = load_dataset(TaskConfig(dataset=name, validation_fraction=0.0))
    assert dataset.kind == "series"
    assert names in (None, dataset.info["series"])
    for number in range(5):
        train, test = (half["time"][half["series"] == number] for half in (dataset.train, dataset.test))
        assert len(train)
        assert train.max() < test.min()
        assert len(test) == round(0.2 * (WINDOW + len(train) + len(test)))


def test_stocks_are_adjusted_prices_by_day() -> None:
    dataset = load_dataset(TaskConfig(dataset="stocks", validation_fraction=0.0))
    last = dataset.test.take(np.flatnonzero(dataset.test["series"].numpy() == 1)[-1:])
    assert datetime.date(1970, 1, 1) + datetime.timedelta(days=int(last["time"])) == datetime.date(2013, 3, 1)
    assert float(last["target"]) == 27.78  # Facebook's close on that day
    split = (datetime.date(2005, 2, 28) - datetime.date(1970, 1, 1)).days  # two Apple shares for one
    (row,) = np.flatnonzero(((dataset.train["series"] == 0) & (dataset.train["time"] == split)).numpy())
    assert 0.9 < dataset.train["target"][row] / dataset.train["window"][row, -1] < 1.1


def test_a_target_lies_horizon_steps_after_its_window() -> None:
    dataset = windows_of("toy", [steps(20)], "m", False, Cut(window=3, horizon=4))
    # Of 20 values the last 4 are held out; the first target is the seventh value.
    assert dataset.train["target"].tolist() == [*range(6, 16)]
    assert dataset.test["target"].tolist() == [16, 17, 18, 19]
    assert dataset.train["window"][0].tolist() == [0, 1, 2]
    assert dataset.test["window"][-1].tolist() == [13, 14, 15]
    assert dataset.info["horizon"] == 4


@pytest.mark.parametrize("name", ["stocks", "sine"])
def test_packaged_series_take_window_and_horizon(name: str) -> None:
    dataset = load_dataset(
        TaskConfig(dataset=name, dataset_options="window = 7, horizon = 5", validation_fraction=0.0)
    )
    assert dataset.train["window"].shape[1] == 7
    series = dataset.train["series"] == 0
    window, target = dataset.train["window"][series], dataset.train["target"][series]
    assert torch.equal(window[5:, -1], target[:-5])
