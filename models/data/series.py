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

WINDOW, HORIZON = 30, 1
"""Values that a forecast is made from, and steps from the last of them to the target."""
TEST_FRACTION = 0.2
_SINES, _SINE_STEPS, _SINE_PERIOD = 5, 1000, 25


@dataclass(frozen=True)
class Series:
    """One series in the order of time."""

    name: str
    time: NDArray[np.float64]
    """(num_steps,), ascending; days since 1970 where the dataset's time is dates."""
    value: NDArray[np.float64]
    """(num_steps,), in the series' own unit."""


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
    series is a natural client. Raises UserError for a series that is too short.
    """
    if not series:
        raise UserError(f"dataset {name!r} holds no series")
    halves = [_examples(name, number, one, cut) for number, one in enumerate(series)]
    train, test = (_join([pair[side] for pair in halves]) for side in (0, 1))
    return Dataset(
        name,
        "series",
        train,
        test,
        client=train["series"].numpy(),
        client_names=tuple(one.name for one in series),
        ordered=True,
        info={
            "series": tuple(one.name for one in series),
            "unit": unit,
            "dates": dates,
            "horizon": cut.horizon,
        },
    )


def _examples(dataset: str, number: int, series: Series, cut: Cut) -> tuple[Examples, Examples]:
    """Return the training and the held-out examples of one series, by the time of their targets."""
    steps, lead = len(series.value), cut.before_target
    first_test = steps - max(1, round(TEST_FRACTION * steps))
    if first_test <= lead:
        raise UserError(
            f"series {series.name!r} of dataset {dataset!r} has {steps} values, too few for windows of "
            f"{cut.window} before a held-out fifth: leave it out, give more, or set a smaller window"
        )
    scale = float(series.value[:first_test].std()) or 1.0
    targets = np.arange(lead, steps)
    targets = targets[~_spans_a_hole(series, cut)]
    if not len(targets) or targets[0] >= first_test or targets[-1] < first_test:
        half = "training" if not len(targets) or targets[0] >= first_test else "held-out"
        raise UserError(
            f"series {series.name!r} of dataset {dataset!r} has no {half} window without a step of more than "
            f"{cut.max_step:g} median steps: set a larger max_step, or 0 for windows over holes"
        )
    windows = np.lib.stride_tricks.sliding_window_view(series.value, cut.window)  # (steps - T + 1, T)
    examples = Examples(
        {
            "window": torch.from_numpy(windows[targets - lead]),
            "target": torch.from_numpy(series.value[targets]),
            "scale": torch.full((len(targets),), scale, dtype=torch.float64),
            "series": torch.full((len(targets),), number),
            "time": torch.from_numpy(series.time[targets]),
        }
    )
    is_test = targets >= first_test
    return examples.take(np.flatnonzero(~is_test)), examples.take(np.flatnonzero(is_test))


def _spans_a_hole(series: Series, cut: Cut) -> NDArray[np.bool_]:
    """Return for each target whether a step between its window's first value and itself is too long."""
    step = np.diff(series.time)
    too_long = step > cut.max_step * np.median(step) if cut.max_step else np.zeros(len(step), dtype=bool)
    # Example i has the steps i to i + before_target - 1.
    spans = np.lib.stride_tricks.sliding_window_view(too_long, cut.before_target)  # (N, steps of each)
    return np.asarray(spans.any(1), dtype=np.bool_)


def _join(parts: Sequence[Examples]) -> Examples:
    return Examples({name: torch.cat([part[name] for part in parts]) for name in parts[0].columns})
