"""Forecasting a value of a series with an LSTM."""

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import require
from models.data.dataset import Dataset, Examples
from models.explain.attribution import GRADIENTS, INTEGRATED_GRADIENTS, attribute
from models.explain.explanation import FEATURES, Explained, Explanation
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EVALUATION_BATCH = 256
LONG_STEP = 10
"""Median steps beyond which a step of time is a hole that a person should know of."""
_PANELS, _STEPS_SHOWN = 6, 120
"""Series that a figure has room for, and steps of each at whose ends one still sees a single step."""


class Forecaster(nn.Module):
    """An LSTM over the window, and a linear layer on its last output."""

    def __init__(self, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, hidden_size, num_layers, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, window: Tensor) -> Tensor:
        """(B, T) -> (B,), both scaled."""
        outputs, _ = self.lstm(window.unsqueeze(-1))  # (B, T, 1) -> (B, T, H)
        forecast: Tensor = self.head(outputs[:, -1]).squeeze(-1)
        return forecast


class Forecasting(Task):
    """Forecast a value that follows a window: the next, or the one `horizon` steps on.

    A window enters as its distance from its own mean, as in RevIN (Kim et al. 2022, "Reversible Instance
    Normalization"): prices leave the range of the training years, and a network that had to say their
    level would fail there. It is divided by the deviation of its series' training values, so that series
    in different units learn alike.

    Options: `hidden_size` and `num_layers` of the LSTM. `window` and `horizon` are options of the dataset.
    """

    kind = "series"
    batches_anywhere = True
    metric = "rmse"
    maximize = False
    metrics = ("mae", "persistence-rmse", "persistence-mae", "rmse-over-persistence", "loss")
    explained_by = GRADIENTS

    def __init__(self, dataset: Dataset, hidden_size: int = 128, num_layers: int = 1) -> None:
        super().__init__(dataset)
        require(hidden_size >= 1, "hidden_size", ">= 1", hidden_size)
        require(num_layers >= 1, "num_layers", ">= 1", num_layers)
        self.hidden_size = hidden_size
        self.num_layers = num_layers

    def build(self) -> nn.Module:
        """Return the network."""
        return Forecaster(self.hidden_size, self.num_layers)

    @property
    def objectives(self) -> Sequence[Objective]:
        """Squared error of the scaled forecast, by Adam with clipped gradients."""
        return [Objective("loss", _squared_error, optimizer=OptimizerChoice("adam", 2e-3), max_grad_norm=1.0)]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return windows and targets, scaled."""
        return _scaled(examples)

    def notes(self) -> Sequence[tuple[int, str]]:
        """Say that windows go over holes, where there are long ones."""
        longest = self.dataset.info.get("longest_step", 1.0)
        if longest <= LONG_STEP:
            return ()
        line = (
            f"the longest step of time in an example is {longest:g} median steps of its series: windows go "
            "over holes; max_step in dataset-options leaves such examples out"
        )
        return [(logging.INFO, line)]

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of errors, in the series' own unit, of the forecast and of persistence.

        Persistence forecasts that nothing changes; "rmse-over-persistence" is below 1 where the network
        knows better.
        """
        target, rows = data["target"], len(data)
        error = self._forecasts(model, data) - target
        persistence = data["window"][:, -1] - target
        squares, squares_of_persistence = float(error.square().sum()), float(persistence.square().sum())
        return {
            "rmse": (squares, rows),
            "mae": (float(error.abs().sum()), rows),
            "persistence-rmse": (squares_of_persistence, rows),
            "persistence-mae": (float(persistence.abs().sum()), rows),
            "rmse-over-persistence": (squares, squares_of_persistence),
            "loss": (float((error / data["scale"]).square().sum()), rows),
        }

    def ratios(self, metrics: Metrics) -> dict[str, float]:
        """Return the means, and roots of means; a root is taken once, of the sums of all clients."""
        means = super().ratios(metrics)
        return {name: math.sqrt(mean) if "rmse" in name else mean for name, mean in means.items()}

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw the forecasts of each series' last held-out steps beside the truth."""
        from matplotlib.figure import Figure

        forecasts = self._forecasts(model, data)
        shown = data["series"].unique()[:_PANELS].tolist()
        figure = Figure(figsize=(9, 0.6 + 1.7 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), squeeze=False)[:, 0]
        for number, axes in zip(shown, panels, strict=True):
            rows = (data["series"] == number).nonzero()[:, 0][-_STEPS_SHOWN:]
            self._draw(axes, number, data.take(rows), forecasts[rows])
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False
        )
        horizon = self.dataset.info.get("horizon", 1)
        ahead = "One step" if horizon == 1 else f"{horizon} steps"
        figure.suptitle(f"{ahead} ahead, held-out steps", x=0.01, ha="left")
        return {"forecast": figure}

    def explain(
        self, model: nn.Module, data: Examples, method: str, asked: Sequence[int] | None = None
    ) -> Explanation:
        """Tell what each value of a window counts for the forecast, in the series' own unit.

        Integrated gradients begin with a window that stays at its own mean, where nothing ever happened.
        """

        def forecast(window: Tensor, scale: Tensor) -> Tensor:
            level = window.mean(1)
            scaled: Tensor = model(((window - level[:, None]) / scale[:, None]).float())
            return level + scale * scaled

        window = data["window"].double()
        calm = _level(data).double()[:, None].expand_as(window)
        found = attribute(forecast, window, method, None, calm, (data["scale"].double(),))
        horizon, length = self.dataset.info.get("horizon", 1), window.shape[1]
        steps = tuple(f"t-{horizon + length - 1 - place}" for place in range(length))
        rows = zip(
            found.values, data["target"].tolist(), found.score.tolist(), found.start.tolist(), strict=True
        )
        return Explanation(
            FEATURES,
            [
                Explained(values, f"{score:g}", f"{score:g}", f"{target:g}", score, start, parts=steps)
                for values, target, score, start in rows
            ],
            signed=method == INTEGRATED_GRADIENTS,
        )

    def _draw(self, axes: "Axes", number: int, data: Examples, forecast: Tensor) -> None:
        info = self.dataset.info
        time = data["time"].numpy()
        if info["dates"]:
            time = time.astype("timedelta64[D]") + np.datetime64(0, "D")
        axes.plot(time, data["target"], color="#333333", linewidth=1.2, label="truth")
        axes.plot(time, forecast, color="#d1495b", linewidth=1.0, label="forecast")
        axes.set_title(info["series"][number], loc="left", fontsize=10)
        axes.set_ylabel(info["unit"], fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)

    def _forecasts(self, model: nn.Module, data: Examples) -> Tensor:
        """(N, T) -> (N,), float64, in the series' own unit, on the CPU."""
        device = next(model.parameters()).device
        windows = _scaled(data)["window"].split(EVALUATION_BATCH)
        scaled = torch.cat([model(chunk.to(device)).cpu() for chunk in windows])
        return _level(data) + data["scale"] * scaled.double()


def _level(data: Examples) -> Tensor:
    return data["window"].mean(1)


def _scaled(data: Examples) -> dict[str, Tensor]:
    """Return what the network sees and is to say: `window` (B, T) and `target` (B,)."""
    level, scale = _level(data), data["scale"]
    window = (data["window"] - level[:, None]) / scale[:, None]
    return {"window": window.float(), "target": ((data["target"] - level) / scale).float()}


def _squared_error(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch["window"]), batch["target"])
