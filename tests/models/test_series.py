"""Time series in windows: exact cuts, nothing of the held-out steps in training, any CSV file."""

import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.series import WINDOW, Series, windows_of


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
    assert dataset.info == {"series": ("one", "two"), "unit": "m", "dates": False}


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
    dataset = load_dataset(TaskConfig(dataset=name))
    assert dataset.kind == "series"
    assert names in (None, dataset.info["series"])
    for number in range(5):
        train, test = (half["time"][half["series"] == number] for half in (dataset.train, dataset.test))
        assert len(train)
        assert train.max() < test.min()
        assert len(test) == round(0.2 * (WINDOW + len(train) + len(test)))


def test_stocks_are_adjusted_prices_by_day() -> None:
    dataset = load_dataset(TaskConfig(dataset="stocks"))
    last = dataset.test.take(np.flatnonzero(dataset.test["series"].numpy() == 1)[-1:])
    assert datetime.date(1970, 1, 1) + datetime.timedelta(days=int(last["time"])) == datetime.date(2013, 3, 1)
    assert float(last["target"]) == 27.78  # Facebook's close on that day
    split = (datetime.date(2005, 2, 28) - datetime.date(1970, 1, 1)).days  # two Apple shares for one
    (row,) = np.flatnonzero(((dataset.train["series"] == 0) & (dataset.train["time"] == split)).numpy())
    assert 0.9 < dataset.train["target"][row] / dataset.train["window"][row, -1] < 1.1


def write(path: Path, text: str) -> TaskConfig:
    path.write_text(text)
    return TaskConfig(dataset=f"csv:{path}")


def rows(num: int, client: str, first_day: str = "2024-01-01") -> list[str]:
    day = datetime.date.fromisoformat(first_day)
    return [f"{number},{day + datetime.timedelta(number)},{client}" for number in range(num)]


def test_csv_of_dates_unsorted_and_with_more_columns(tmp_path: Path) -> None:
    lines = [f"{line},x" for line in reversed(rows(40, "07") + rows(50, "b"))]
    dataset = load_dataset(write(tmp_path / "a.csv", "\n".join(["value,time,client,note", *lines])))
    assert dataset.info == {"series": ("07", "b"), "unit": "", "dates": True}
    assert dataset.train["target"].tolist() == [30, 31, *range(30, 40)]
    days = (datetime.date(2024, 1, 31) - datetime.date(1970, 1, 1)).days
    assert dataset.train["time"][:2].tolist() == [days, days + 1]


def test_csv_of_numbered_times_below_the_data_dir(tmp_path: Path) -> None:
    lines = [f"{number * 10},{number / 2},a" for number in range(40)]
    (tmp_path / "b.csv").write_text("\n".join(["time,value,client", *lines]))
    dataset = load_dataset(TaskConfig(dataset="csv:b.csv", data_dir=str(tmp_path)))
    assert dataset.test["time"].tolist() == [*range(320, 400, 10)]
    assert dataset.test["target"].tolist() == [number / 2 for number in range(32, 40)]
    assert not dataset.info["dates"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["time,price,client", "1,2,a"], "needs the columns client, time, value, and lacks value: rename"),
        (
            ["value,time,client", *rows(30, "a")],
            "series 'a' of dataset .* has 30 values, too few for windows",
        ),
        (["value,time,client"], "holds no series"),
        (["value,time,client", ",1,a"], "has rows without a time, a value or a client: fill or drop them"),
        (["value,time,client", "1,1,"], "has rows without a time, a value or a client: fill or drop them"),
        (["value,time,client", "1,1,a", "2,1,a"], "has several values for one client and time"),
        (["value,time,client", "high,1,a"], "holds a time or a value that cannot be read: could not convert"),
        (["value,time,client", "1,noon,a"], "holds a time or a value that cannot be read: "),
        ([], "cannot be read from .*: No columns"),
    ],
)
def test_csv_that_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(write(tmp_path / "c.csv", "\n".join(lines)))


@pytest.mark.parametrize(
    ("dataset", "data_dir", "message"),
    [
        ("csv:/no/such.csv", "", "dataset 'csv:/no/such.csv' cannot be read from /no/such.csv: "),
        ("csv:a.csv", "", "'csv:' and an absolute path, or a path relative to data-dir .* got 'csv:a.csv'"),
        ("csv:/a.csv", "/data", "'csv:' and an absolute path, or a path relative to data-dir"),
        ("csv:", "/data", "'csv:' and an absolute path, or a path relative to data-dir"),
        ("csv", "", "unknown dataset 'csv': did you mean csv:"),
    ],
)
def test_csv_that_is_not_there(dataset: str, data_dir: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(TaskConfig(dataset=dataset, data_dir=data_dir))
