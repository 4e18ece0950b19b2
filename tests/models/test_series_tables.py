"""Tables of series: what is read as it is written, and the line that says what cannot be read."""

import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from places import CASES

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data import large, series, table
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.series.lstm_forecast import Forecasting

HEADER = "value,time,client"


def load(path: Path, options: str = "") -> Dataset:
    return load_dataset(TaskConfig(dataset=f"csv:{path}", dataset_options=options, validation_fraction=0.0))


def rows(num: int, client: str, first_day: str = "2024-01-01") -> list[str]:
    day = datetime.date.fromisoformat(first_day)
    return [f"{number},{day + datetime.timedelta(number)},{client}" for number in range(num)]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_dates_unsorted_and_with_more_columns(tmp_path: Path) -> None:
    lines = [f"{line},x" for line in reversed(rows(40, "07") + rows(50, "b"))]
    dataset = load(write(tmp_path / "a.csv", [f"{HEADER},note", *lines]))
    told = {"series": ("07", "b"), "unit": "", "dates": True, "horizon": 1, "longest_step": 1.0}
    assert dataset.info == told
    assert dataset.train["target"].tolist() == [30, 31, *range(30, 40)]
    days = (datetime.date(2024, 1, 31) - datetime.date(1970, 1, 1)).days
    assert dataset.train["time"][:2].tolist() == [days, days + 1]


def test_numbered_times_below_the_data_dir(tmp_path: Path) -> None:
    lines = [f"{number * 10},{number / 2},a" for number in range(40)]
    write(tmp_path / "b.csv", ["time,value,client", *lines])
    dataset = load_dataset(TaskConfig(dataset="csv:b.csv", data_dir=str(tmp_path)))
    assert dataset.test["time"].tolist() == [*range(320, 400, 10)]
    assert dataset.test["target"].tolist() == [number / 2 for number in range(32, 40)]
    assert not dataset.info["dates"]


def test_a_client_called_na_is_a_client() -> None:
    assert load(CASES / "na.csv").info["series"] == ("DE", "KE", "NA")


def test_iso_times_with_and_without_fractions_in_one_column() -> None:
    dataset = load(CASES / "iso.csv")
    assert dataset.info["series"] == ("a", "b")
    # Ten seconds a step, but that a full minute has no fraction of .123456.
    seconds = np.diff(dataset.test["time"][:40].numpy()) * 86400
    assert np.unique(seconds.round(5)) == pytest.approx([9.87654, 10, 10.12346])


def test_windows_span_a_hole_unless_max_step_forbids_it() -> None:
    """Each series is hourly, with one hole of 60 days among its training values."""
    usual, whole = load(CASES / "gap.csv"), load(CASES / "gap.csv", "max_step = 24")
    assert (len(usual.train), len(usual.test)) == (2 * 210, 2 * 60)
    # The 30 targets of each series whose step or window holds the hole are left out.
    assert (len(whole.train), len(whole.test)) == (2 * 180, 2 * 60)
    kept = np.isin(usual.train["time"].numpy(), whole.train["time"].numpy())
    assert np.array_equal(usual.train["window"].numpy()[kept], whole.train["window"].numpy())


def test_a_byte_order_mark_quotes_and_crlf_are_no_data(tmp_path: Path) -> None:
    lines = [f'{line},"x\u2028y"' for line in rows(40, '" a,b"')]
    text = "\r\n".join([f"{HEADER},note", *lines, ""])
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    dataset = load(tmp_path / "a.csv")
    assert dataset.info["series"] == ("a,b",)
    assert len(dataset.train) + len(dataset.test) == 10


def test_numbers_are_read_to_the_last_bit(tmp_path: Path) -> None:
    values = [repr(1e-5 * value) for value in np.random.default_rng(1).normal(size=40).tolist()]
    path = write(tmp_path / "a.csv", ["client,value,time", *(f"a,{v},{n}" for n, v in enumerate(values))])
    assert load(path).test["target"].tolist() == [float(value) for value in values[32:]]


def test_columns_by_name_as_a_spreadsheet_of_another_country_writes_them(tmp_path: Path) -> None:
    lines = [f"Zürich;{1 + n % 28:02}.{1 + n // 28:02}.2024;{n},5;x" for n in range(40)]
    (tmp_path / "a.csv").write_text("\r\n".join(["Ort;Tag;Preis;Rest", *lines]), encoding="cp1252")
    dataset = load(
        tmp_path / "a.csv",
        "client = 'Ort', time = 'Tag', value = 'Preis', time_format = '%d.%m.%Y', encoding = 'cp1252', "
        "delimiter = ';', decimal = ','",
    )
    assert dataset.client_names == ("Zürich",)
    assert dataset.test["target"].tolist() == [number + 0.5 for number in range(32, 40)]


def test_several_value_columns_are_series_of_one_client(tmp_path: Path) -> None:
    lines = [f"{n},{n},{-n},{name}" for n in range(40) for name in "ba"]
    dataset = load(
        write(tmp_path / "a.csv", ["time,up,down,client", *lines]), "value = ['up', 'down'], window = 5"
    )
    assert dataset.info["series"] == ("a: up", "a: down", "b: up", "b: down")
    assert dataset.client_names == ("a", "b")
    assert dataset.client is not None
    assert dataset.client.tolist() == [0] * 2 * 27 + [1] * 2 * 27
    assert dataset.train["series"].tolist() == [number for number in range(4) for _ in range(27)]
    assert dataset.train["window"][27].tolist() == [0, -1, -2, -3, -4]


def test_a_table_without_clients_is_one(tmp_path: Path) -> None:
    lines = [f"{n},{n},{n}" for n in range(40)]
    path = write(tmp_path / "a.csv", ["time,up,down", *lines])
    assert load(path, "value = 'up', client = ''").info["series"] == ("up",)
    both = load(path, "value = ['up', 'down'], client = ''")
    assert both.info["series"] == ("up", "down")
    assert both.client_names == ("up",)


def test_json_lines_hold_numbers_and_dates(tmp_path: Path) -> None:
    rows = [{"time": f"2024-01-{n + 1:02}", "value": n, "client": 7} for n in range(20)]
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = TaskConfig(dataset=f"json:{tmp_path / 'a.json'}", dataset_options="window = 5")
    dataset = load_dataset(config)
    assert dataset.info["dates"]
    assert dataset.client_names == ("7",)
    assert dataset.test["target"].tolist() == [16, 17, 18, 19]


def test_parts_and_a_mapped_column_are_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(CASES / "gap.csv")
    monkeypatch.setattr(table, "PART", 7)
    monkeypatch.setattr(large, "IN_MEMORY", 100)
    monkeypatch.setattr(series, "_AT_ONCE", 13)
    monkeypatch.setenv("POLYFED_CACHE", str(tmp_path))
    load_dataset.cache_clear()
    parts = load(CASES / "gap.csv")
    for half in ("train", "test"):
        for column, values in getattr(whole, half).columns.items():
            assert torch.equal(getattr(parts, half)[column], values)


def test_long_steps_are_said_once_and_not_where_examples_are_left_out() -> None:
    usual, whole = load(CASES / "gap.csv"), load(CASES / "gap.csv", "max_step = 24")
    ((_, line),) = Forecasting(usual).notes()
    assert line.startswith(
        "the longest step of time in an example is 1441 median steps of its series: windows"
    )
    assert Forecasting(whole).notes() == ()


def test_dates_in_a_form_of_their_own(tmp_path: Path) -> None:
    lines = [f"{number},{1 + number % 28:02}.{1 + number // 28:02}.2024,a" for number in range(40)]
    dataset = load(write(tmp_path / "a.csv", [HEADER, *lines]), "time_format = '%d.%m.%Y'")
    last = datetime.date(1970, 1, 1) + datetime.timedelta(days=int(dataset.test["time"][-1]))
    assert last == datetime.date(2024, 2, 12)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["time,price,client", "1,2,a"],
            "{} needs the columns client, time, value, and lacks value: it has 'time,price,client'; name its",
        ),
        (["time;value;client", "1;2;a"], "it has 'time;value;client'; .* delimiter where it has other signs"),
        ([], "{} is empty: give rows with the columns client, time, value$"),
        (
            ["time,value", "1,1"],
            "lacks client: .*, such as client = 'shop', or '' where it has none, and del",
        ),
        (["value,time,client,time", "1,1,a,1"], "{} has the column time twice: rename one of them"),
        ([HEADER, *rows(30, "a")], "series 'a' of dataset .* has 30 values, too few for windows of 30"),
        ([HEADER], "holds no series"),
        ([HEADER, "1,1,a", ",2,a"], "{}, line 3: value must be filled in, or the row left out, got ''"),
        ([HEADER, "1, ,a"], "{}, line 2: time must be filled in, or the row left out, got ' '"),
        ([HEADER, "", "1,1,"], "{}, line 3: client must be filled in, or the row left out, got ''"),
        (
            [HEADER, "1,1,a", "1,2,a\u2028b"],
            "{}, line 3: client must be the name of a client, of at most 200 p",
        ),
        ([HEADER, "1,1,a", f"1,2,{'a' * 201}"], "{}, line 3: client must be the name of a client, of at"),
        ([HEADER, "1,1,a", "2,1,b", "3,1,a"], "{}, line 4: time must be another than in all other rows of"),
        ([HEADER, "1,1,a", "high,2,a"], "{}, line 3: value must be a finite number, got 'high'"),
        ([HEADER, "1,1,a", "inf,2,a"], "{}, line 3: value must be a finite number, got 'inf'"),
        ([HEADER, "1,1,a", "1_000,2,a"], "{}, line 3: value must be a finite number, got '1_000'"),
        ([HEADER, "1,1,a", "nan,2,a"], "{}, line 3: value must be a finite number, got 'nan'"),
        (
            [HEADER, "1,2024-01-01,a", "1,noon,a"],
            "{}, line 3: time must be a number in every row or a date as",
        ),
        ([HEADER, "1,1,a", "1,2,a", "1,3O,a", "1,4,a"], "{}, line 4: time must be a number .*got '3O'"),
        ([HEADER, "1,01/02/2024,a"], "{}, line 2: time must be a number .*got '01/02/2024'"),
        ([HEADER, "1,2024-02-30,a"], "{}, line 2: time must be a number .*got '2024-02-30'"),
        (
            [HEADER, '1,1,"a\nb"', "2,2,c,d"],
            "{}, line 4: expected 3 values with commas between, .* got 4: '2,2",
        ),
        ([HEADER, "1,1"], "{}, line 2: expected 3 values with commas between, as the header has, got 2"),
        ([HEADER, '1,1,"a'], "{}, line 2: no row of a CSV file"),
    ],
)
def test_what_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write(tmp_path / "c.csv", lines)
    with pytest.raises(UserError, match=message.format(path)) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_thousands_are_no_fractions(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["time;value;client", "1;980;a", "2;990,5;a", "3;1.010;a", "4;1.020;a"])
    with pytest.raises(UserError, match=r"line 4: value must be a finite number with ',' .*, got '1\.010'"):
        load(path, "delimiter = ';', decimal = ','")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("window = 0", "window must be >= 1, got 0"),
        ("horizon = 0", "horizon must be >= 1, got 0"),
        ("max_step = 0.5", "max_step must be 0 or >= 1, got 0.5"),
        ("horizon = '1'", "horizon must be a whole number, got '1'"),
        ("windw = 3", "unknown option of dataset .* 'windw': did you mean window"),
        ("time_format = '%d'", "line 2: time must be of the form '%d', got '0'"),
        ("value = ['value', 'value']", "time, value and client must name different columns, got 'time'"),
        ("value = 'client'", "time, value and client must name different columns, got 'time'"),
        ("value = 7", "value must be a column's name, or a list of them, got 7"),
        (
            "time = 'day'",
            "needs .*, and lacks day: it has 'time,value,client'; name one that it has, and delim",
        ),
        ("encoding = 'x'", "encoding must be one that Python knows, such as 'utf-8', 'latin-1'"),
        ("delimiter = ';;'", r"such as ',', ';' or a tab \(.\\t.\), got ';;'"),
        ("decimal = ',', quote = ''", "decimal must be another sign than delimiter, got ','"),
        ("decimal = ';'", "decimal must be '.' or ',', got ';'"),
        ("window = 200", "has 200 values, too few for windows of 200 .* or set a smaller window"),
    ],
)
def test_options_that_do_not_fit(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(CASES / "na.csv", options)


def test_holes_that_leave_nothing(tmp_path: Path) -> None:
    times = [number + 1000 * (number // 20) for number in range(100)]
    path = write(tmp_path / "a.csv", [HEADER, *(f"1,{time},a" for time in times)])
    with pytest.raises(UserError, match="has no training window without a step of more than 5 median steps"):
        load(path, "max_step = 5")


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("value,time,client\n1,1,Zürich".encode("latin-1"))
    with pytest.raises(UserError, match=r"a.csv is not in UTF-8 \(.*\): save it as UTF-8, or name its encod"):
        load(tmp_path / "a.csv")
    with pytest.raises(
        UserError, match=r"a.csv is not in utf-16 \(.*\): save it as UTF-8, or name its encod"
    ):
        load(tmp_path / "a.csv", "encoding = 'utf-16'")


@pytest.mark.parametrize(
    ("dataset", "data_dir", "message"),
    [
        ("csv:/no/such.csv", "", "/no/such.csv cannot be read .No such file or directory.: give a CSV file"),
        (
            "csv:a.csv",
            "",
            "after 'csv:' dataset must have an absolute path, or a path relative to data-dir .* got 'a.csv'",
        ),
        (
            "csv:/a.csv",
            "/data",
            "after 'csv:' data-dir is set, so give a path relative to it, or leave data-dir out, got '/a",
        ),
        ("csv:", "/data", "dataset must be 'csv:FILE', got 'csv:'"),
        ("csv", "", "dataset must be 'csv:FILE', got 'csv'"),
    ],
)
def test_what_is_not_there(dataset: str, data_dir: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(TaskConfig(dataset=dataset, data_dir=data_dir))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    shutil.copy(CASES / "na.csv", tmp_path / "na.csv")
    with pytest.raises(UserError, match=r"must be a csv file, or a folder with train.csv and test.csv or"):
        load(tmp_path)
    for half in ("train", "test"):
        shutil.copy(CASES / "na.csv", tmp_path / f"{half}.csv")
    with pytest.raises(UserError, match=r"holds series, whose last fifth is held out: name one file, and no"):
        load(tmp_path)
