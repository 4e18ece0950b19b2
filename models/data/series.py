"""Time series in windows: daily stock prices, noisy sines, and any CSV file.

An example is a window of the values before a target. The last fifth of every series' targets are held out, so
that nothing which is trained on lies behind the time of a forecast that is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.source import source_path

# pandas is imported where it is used: it costs every worker a part of a second.

WINDOW = 30
"""Values that a forecast is made from."""
TEST_FRACTION = 0.2
COLUMNS = ("client", "time", "value")
_SINES, _SINE_STEPS, _SINE_PERIOD = 5, 1000, 25


@dataclass(frozen=True)
class Series:
    """One series in the order of time."""

    name: str
    time: NDArray[np.float64]
    """(num_steps,), ascending; days since 1970 where the dataset's time is dates."""
    value: NDArray[np.float64]
    """(num_steps,), in the series' own unit."""


def load_stocks(config: TaskConfig) -> Dataset:
    """Return bokeh-sampledata's daily prices of AAPL, FB, GOOG, IBM and MSFT, 2000 to 2013, in US dollars.

    They are closing prices adjusted for splits and dividends: an unadjusted one halves at a split, which
    no forecast can know.
    """
    from bokeh_sampledata import stocks

    def read(ticker: str) -> Series:
        prices = getattr(stocks, ticker)
        days = np.array(prices["date"], dtype="datetime64[D]").astype(np.float64)
        return Series(ticker, days, np.array(prices["adj_close"]))

    tickers = [read(ticker) for ticker in ("AAPL", "FB", "GOOG", "IBM", "MSFT")]
    return windows_of("stocks", tickers, unit="US dollars", dates=True)


def load_sine(config: TaskConfig) -> Dataset:
    """Return five sines of a period of 25 steps, in noise of a twentieth of their amplitude.

    Each has its own amplitude, phase and level, the same whatever the seed of the run. Noise is what no
    forecast can know: a perfect one has an RMSE of 0.26 times that of persistence.
    """
    rng, steps = np.random.default_rng(0), np.arange(_SINE_STEPS, dtype=np.float64)

    def draw(number: int) -> Series:
        amplitude, level, phase = rng.uniform(1, 5), rng.uniform(-20, 20), rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * steps / _SINE_PERIOD + phase)
        noise = rng.normal(0, 0.05, _SINE_STEPS)
        return Series(f"sine {number}", steps, level + amplitude * (wave + noise))

    return windows_of("sine", [draw(number) for number in range(_SINES)], unit="", dates=False)


def load_csv(config: TaskConfig) -> Dataset:
    """Return the series of "csv:PATH": a file with the columns time, value and client, in any order.

    A client is one series; its rows may come unsorted. Times are numbers or dates in any form that pandas
    knows. Raises UserError for a file that is not there, or that holds something else.
    """
    import pandas as pd

    path = source_path(config)
    try:
        frame = pd.read_csv(path, dtype={"client": str})
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"dataset {config.dataset!r} cannot be read from {path}: {error}") from error
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise UserError(
            f"{path} needs the columns {', '.join(COLUMNS)}, and lacks {', '.join(missing)}: rename its own"
        )
    dates = not pd.api.types.is_numeric_dtype(frame["time"])
    try:
        frame["time"] = _days(frame["time"]) if dates else frame["time"].astype(float)
        frame["value"] = frame["value"].astype(float)
    except ValueError as error:
        raise UserError(f"{path} holds a time or a value that cannot be read: {error}") from error
    if not np.isfinite(frame[["time", "value"]].to_numpy()).all() or frame["client"].isna().any():
        raise UserError(f"{path} has rows without a time, a value or a client: fill or drop them")
    if frame.duplicated(["client", "time"]).any():
        raise UserError(f"{path} has several values for one client and time: keep one of them")
    groups = frame.sort_values("time").groupby("client")
    series = [Series(str(name), rows["time"].to_numpy(), rows["value"].to_numpy()) for name, rows in groups]
    return windows_of(config.dataset, series, unit="", dates=dates)


def _days(time: Any) -> Any:
    """Return dates as days since 1970; those without a zone are taken as UTC."""
    import pandas as pd

    return (pd.to_datetime(time, utc=True) - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)


def windows_of(name: str, series: Sequence[Series], unit: str, dates: bool) -> Dataset:
    """Cut series into examples of `window` (N, WINDOW), `target` (N,), `scale`, `series` and `time` (N,).

    `scale` is the deviation of the series' training values, in its own unit; `time` is the target's. Each
    series is a natural client. Raises UserError for a series that is too short.
    """
    if not series:
        raise UserError(f"dataset {name!r} holds no series")
    halves = [_cut(name, number, one) for number, one in enumerate(series)]
    train, test = (_join([pair[side] for pair in halves]) for side in (0, 1))
    return Dataset(
        name,
        "series",
        train,
        test,
        client=train["series"].numpy(),
        ordered=True,
        info={"series": tuple(one.name for one in series), "unit": unit, "dates": dates},
    )


def _cut(dataset: str, number: int, series: Series) -> tuple[Examples, Examples]:
    """Return the training and the held-out windows of one series, by the time of their targets."""
    steps = len(series.value)
    first_test = steps - max(1, round(TEST_FRACTION * steps))
    if first_test <= WINDOW:
        raise UserError(
            f"series {series.name!r} of dataset {dataset!r} has {steps} values, too few for windows of "
            f"{WINDOW} before a held-out fifth: leave it out or give more"
        )
    scale = float(series.value[:first_test].std()) or 1.0
    targets = np.arange(WINDOW, steps)
    windows = np.lib.stride_tricks.sliding_window_view(series.value[:-1], WINDOW)  # (N, WINDOW)
    rows = Examples(
        {
            "window": torch.from_numpy(windows.copy()),
            "target": torch.from_numpy(series.value[targets]),
            "scale": torch.full((len(targets),), scale, dtype=torch.float64),
            "series": torch.full((len(targets),), number),
            "time": torch.from_numpy(series.time[targets]),
        }
    )
    return rows.take(np.flatnonzero(targets < first_test)), rows.take(np.flatnonzero(targets >= first_test))


def _join(parts: Sequence[Examples]) -> Examples:
    return Examples({name: torch.cat([part[name] for part in parts]) for name in parts[0].columns})
