"""Time series in windows: daily stock prices, noisy sines, and the windows of any series.

An example is a window of values and a target after it. The last fifth of every series' targets are held out,
so that nothing which is trained on lies behind the time of a forecast that is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.core.config import TaskConfig, require
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.large import zeros

WINDOW, HORIZON = 30, 1
"""Values that a forecast is made from, and steps from the last of them to the target."""
TEST_FRACTION = 0.2
_ROUNDING = 1 + 1e-6
"""Days since 1970 tell seconds apart, and not to the last bit: even steps differ by so much."""
_AT_ONCE = 2**16
"""Windows that are copied at a time."""
_SINES, _SINE_STEPS, _SINE_PERIOD = 5, 1000, 25


@dataclass(frozen=True)
class Series:
    """One series in the order of time."""

    name: str
    time: NDArray[np.float64]
    """(num_steps,), ascending; days since 1970 where the dataset's time is dates."""
    value: NDArray[np.float64]
    """(num_steps,), in the series' own unit."""
    client: str = ""
    """Name of the natural client that it belongs to; "" = that of the series."""


@dataclass(frozen=True)
class Cut:
    """How series are cut into examples; raises UserError for numbers that do not fit."""

    window: int = WINDOW
    """Values that a forecast is made from."""
    horizon: int = HORIZON
    """Steps from the window's last value to the target."""
    max_step: float = 0.0
    """Longest step of time within an example, in median steps of its series; 0 = of any length."""

    def __post_init__(self) -> None:
        require(self.window >= 1, "window", ">= 1", self.window)
        require(self.horizon >= 1, "horizon", ">= 1", self.horizon)
        fits = self.max_step == 0 or self.max_step >= 1
        require(fits, "max_step", "0 or >= 1", self.max_step)

    @property
    def before_target(self) -> int:
        """Steps from a window's first value to the target."""
        return self.window + self.horizon - 1


AS_USUAL = Cut()


def load_stocks(
    config: TaskConfig, window: int = WINDOW, horizon: int = HORIZON, max_step: float = 0.0
) -> Dataset:
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
    return windows_of("stocks", tickers, "US dollars", True, Cut(window, horizon, max_step))


def load_sine(
    config: TaskConfig, window: int = WINDOW, horizon: int = HORIZON, max_step: float = 0.0
) -> Dataset:
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

    sines = [draw(number) for number in range(_SINES)]
    return windows_of("sine", sines, "", False, Cut(window, horizon, max_step))


def windows_of(name: str, series: Sequence[Series], unit: str, dates: bool, cut: Cut = AS_USUAL) -> Dataset:
    """Cut series into examples of `window` (N, T), `target` (N,), `scale`, `series` and `time` (N,).

    `scale` is the deviation of the series' training values, in its own unit; `time` is the target's. Each
    series is a natural client unless it names one. Raises UserError for a series that is too short.
    """
    if not series:
        raise UserError(f"dataset {name!r} holds no series")
    pairs = [_targets(name, one, cut) for one in series]
    train, test = (_examples(series, [pair[side] for pair in pairs], cut) for side in (0, 1))
    # Two series of one name are two clients all the same.
    names = {one.client or place: one.client or one.name for place, one in enumerate(series)}
    numbers = {key: number for number, key in enumerate(names)}
    owner = np.array([numbers[one.client or place] for place, one in enumerate(series)])
    return Dataset(
        name,
        "series",
        train,
        test,
        client=owner[train["series"].numpy()],
        client_names=tuple(names.values()),
        ordered=True,
        info={
            "series": tuple(one.name for one in series),
            "unit": unit,
            "dates": dates,
            "horizon": cut.horizon,
            "longest_step": max(_longest_step(one, cut) for one in series),
        },
    )


def _targets(dataset: str, series: Series, cut: Cut) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the steps that are the targets of a series' training and of its held-out examples."""
    steps, lead = len(series.value), cut.before_target
    first_test = _first_test(series)
    if first_test <= lead:
        raise UserError(
            f"series {series.name!r} of dataset {dataset!r} has {steps} values, too few for windows of "
            f"{cut.window} before a held-out fifth: leave it out, give more, or set a smaller window"
        )
    targets = np.arange(lead, steps)
    targets = targets[~_spans_a_hole(series, cut)]
    if not len(targets) or targets[0] >= first_test or targets[-1] < first_test:
        half = "training" if not len(targets) or targets[0] >= first_test else "held-out"
        raise UserError(
            f"series {series.name!r} of dataset {dataset!r} has no {half} window without a step of more than "
            f"{cut.max_step:g} median steps: set a larger max_step, or 0 for windows over holes"
        )
    is_test = targets >= first_test
    return targets[~is_test], targets[is_test]


def _longest_step(series: Series, cut: Cut) -> float:
    """Return the longest step of time within an example of a series, in its median steps."""
    step = _steps(series)
    return float(step[step <= cut.max_step * _ROUNDING].max() if cut.max_step else step.max())


def _steps(series: Series) -> NDArray[np.float64]:
    """Return the steps of time (num_steps - 1,), in median steps."""
    step = np.diff(series.time)
    return np.asarray(step / np.median(step), dtype=np.float64)


def _first_test(series: Series) -> int:
    """Return the first step that is held out."""
    return len(series.value) - max(1, round(TEST_FRACTION * len(series.value)))


def _examples(series: Sequence[Series], targets: Sequence[NDArray[np.int64]], cut: Cut) -> Examples:
    """Return the examples of some targets of every series, one series after the other."""
    num = sum(map(len, targets))
    window, target, time, scale = (zeros((num, *axes), np.float64) for axes in ((cut.window,), (), (), ()))
    number = zeros((num,), np.int64)
    end = 0
    for place, (one, chosen) in enumerate(zip(series, targets, strict=True)):
        start, end = end, end + len(chosen)
        windows = np.lib.stride_tricks.sliding_window_view(one.value, cut.window)  # (steps - T + 1, T)
        for first in range(0, len(chosen), _AT_ONCE):  # so that a copy is small
            part = chosen[first : first + _AT_ONCE]
            window[start + first : start + first + len(part)] = windows[part - cut.before_target]
        target[start:end], time[start:end] = one.value[chosen], one.time[chosen]
        scale[start:end] = float(one.value[: _first_test(one)].std()) or 1.0
        number[start:end] = place
    columns = {"window": window, "target": target, "scale": scale, "series": number, "time": time}
    return Examples({name: torch.from_numpy(column) for name, column in columns.items()})


def _spans_a_hole(series: Series, cut: Cut) -> NDArray[np.bool_]:
    """Return for each target whether a step between its window's first value and itself is too long."""
    step = _steps(series)
    too_long = step > cut.max_step * _ROUNDING if cut.max_step else np.zeros(len(step), dtype=bool)
    # Example i has the steps i to i + before_target - 1.
    spans = np.lib.stride_tricks.sliding_window_view(too_long, cut.before_target)  # (N, steps of each)
    return np.asarray(spans.any(1), dtype=np.bool_)
