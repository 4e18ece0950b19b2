"""Forecasting: scaling, errors in the series' own unit, persistence, in exact numbers; and that it learns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finished import Make, finish
from torch import Tensor, nn

from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.data.dataset import Examples
from models.data.datasets import load_dataset
from models.data.series import Cut, Series, windows_of
from models.registry import load_task
from models.series.lstm_forecast import EVALUATION_BATCH, Forecaster, Forecasting
from models.task import merge_metrics
from simulations.scenario import load_scenario


def task(num_steps: int = 50) -> Forecasting:
    """Forecast 0, 1, 2 ...; the last fifth of it is held out."""
    numbers = np.arange(num_steps, dtype=np.float64)
    return Forecasting(windows_of("toy", [Series("one", numbers, numbers)], unit="m", dates=False))


class Fixed(nn.Module):
    """Forecasts the same scaled distance from every window's mean."""

    def __init__(self, distance: float) -> None:
        super().__init__()
        self.distance = nn.Parameter(torch.tensor(distance))

    def forward(self, window: Tensor) -> Tensor:
        return self.distance.expand(len(window))


def rising(targets: list[float], scale: float = 2.0) -> Examples:
    """Windows 0, 1 ... 29, whose mean is 14.5, before these targets."""
    num = len(targets)
    return Examples(
        {
            "window": torch.arange(30.0, dtype=torch.float64).expand(num, -1),
            "target": torch.tensor(targets, dtype=torch.float64),
            "scale": torch.full((num,), scale, dtype=torch.float64),
            "series": torch.zeros(num, dtype=torch.int64),
            "time": torch.arange(num, dtype=torch.float64),
        }
    )


def test_the_network_has_a_cell_of_128() -> None:
    model = task().build()
    assert model(torch.zeros(3, 30)).shape == (3,)
    # Four gates of 128 see one value and 128 outputs, with two biases each; then 128 -> 1.
    assert sum(weight.numel() for weight in model.parameters()) == 4 * 128 * (1 + 128 + 2) + 129
    deeper = 4 * 8 * (1 + 8 + 2) + 4 * 8 * (8 + 8 + 2) + 9
    assert sum(weight.numel() for weight in Forecaster(8, 2).parameters()) == deeper


def test_what_the_network_sees_is_scaled_and_free_of_level() -> None:
    rows = rising([30.0, 31.0])
    moved = Examples({**rows.columns, "window": rows["window"] + 700, "target": rows["target"] + 700})
    for data in (rows, moved):
        (batch,) = task().batches(nn.Module(), data, torch.Generator(), batch_size=2)
        assert batch["window"][0].tolist() == [(step - 14.5) / 2 for step in range(30)]
        assert sorted(batch["target"].tolist()) == [(30 - 14.5) / 2, (31 - 14.5) / 2]
        assert batch["window"].dtype == batch["target"].dtype == torch.float32


def test_one_epoch_yields_every_row_once_in_the_generators_order() -> None:
    rows = rising([float(number) for number in range(10)], scale=1.0)

    def order(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        batches = list(task().batches(nn.Module(), rows, generator, batch_size=4))
        assert [len(batch["window"]) for batch in batches] == [4, 4, 2]
        return (torch.cat([batch["target"] for batch in batches]) + 14.5).tolist()

    assert sorted(order(1)) == list(range(10))
    assert order(1) == order(1) != order(2)


@torch.no_grad()
def test_errors_are_sums_in_the_series_own_unit() -> None:
    # The forecast is 14.5 + 2 * 7 = 28.5, persistence says 29.
    metrics = task().evaluate(Fixed(7.0), rising([30.0, 26.5]), torch.Generator())
    assert metrics == {
        "rmse": (1.5**2 + 2.0**2, 2),
        "mae": (1.5 + 2.0, 2),
        "persistence-rmse": (1.0**2 + 2.5**2, 2),
        "persistence-mae": (1.0 + 2.5, 2),
        "rmse-over-persistence": (6.25, 7.25),
        "loss": (0.75**2 + 1.0**2, 2),
    }


@torch.no_grad()
def test_roots_are_taken_once_of_the_sums_of_all_clients() -> None:
    forecasting = task()
    parts = [forecasting.evaluate(Fixed(7.0), rising([target]), torch.Generator()) for target in (31.5, 32.5)]
    merged = forecasting.ratios(merge_metrics(parts))
    assert merged["rmse"] == pytest.approx(12.5**0.5)  # the mean of 3 and 4 would be 3.5
    assert merged["mae"] == 3.5
    assert merged["rmse-over-persistence"] == pytest.approx((25 / (2.5**2 + 3.5**2)) ** 0.5)


@torch.no_grad()
def test_chunks_change_no_forecast() -> None:
    forecasting, rows = task(), rising([float(number) for number in range(EVALUATION_BATCH + 3)])
    metrics = forecasting.evaluate(Fixed(7.0), rows, torch.Generator())
    assert metrics["mae"] == (sum(abs(28.5 - number) for number in range(EVALUATION_BATCH + 3)), len(rows))


def test_gradients_are_clipped_to_a_norm_of_1() -> None:
    (objective,) = task().objectives
    loss = objective.loss(Fixed(2.0), {"window": torch.zeros(2, 30), "target": torch.tensor([1.0, 4.0])})
    assert float(loss.detach()) == (1**2 + 2**2) / 2
    assert objective.max_grad_norm == 1.0


@torch.no_grad()
def test_the_figure_shows_forecast_and_truth_of_each_series() -> None:
    numbers = np.arange(50, dtype=np.float64)
    series = [Series(name, 19000 + numbers, start + numbers) for name, start in (("one", 0), ("two", 500))]
    forecasting = Forecasting(windows_of("toy", series, unit="US dollars", dates=True))
    (figure,) = forecasting.figures(Fixed(0.0), forecasting.dataset.test, torch.Generator()).values()
    one, two = figure.axes
    assert [axes.get_title(loc="left") for axes in (one, two)] == ["one", "two"]
    assert two.get_ylabel() == "US dollars"
    truth, forecast = two.get_lines()
    assert list(truth.get_ydata()) == list(range(540, 550))
    assert np.allclose(forecast.get_ydata(), np.arange(524.5, 534.5))  # the mean of the 30 values before
    assert truth.get_xdata()[0] == np.datetime64("2022-02-17")  # day 19,040


@torch.no_grad()
@pytest.mark.parametrize(("horizon", "said"), [(1, "One step ahead"), (7, "7 steps ahead")])
def test_the_figure_says_how_far_ahead_it_looks(horizon: int, said: str) -> None:
    numbers = np.arange(50, dtype=np.float64)
    dataset = windows_of("toy", [Series("one", numbers, numbers)], "m", False, Cut(horizon=horizon))
    (figure,) = Forecasting(dataset).figures(Fixed(0.0), dataset.test, torch.Generator()).values()
    assert figure.get_suptitle() == f"{said}, held-out steps"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("hidden_size = 0", "hidden_size must be >= 1, got 0"),
        ("num_layers = 0", "num_layers must be >= 1, got 0"),
        ("hidden_size = 'wide'", "hidden_size must be a whole number"),
    ],
)
def test_options_that_are_refused(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig(task="lstm-forecast", task_options=options), task().dataset)


def sines(tiny: Make, **changes: Value) -> dict[str, Value]:
    federated: dict[str, Value] = {"num_clients": 5, "partitioner": "natural", "batch_size": 16}
    return tiny(**{"task": "lstm-forecast", "dataset": "sine", **federated, **changes})


def test_hash_does_not_depend_on_who_shares_a_node(tiny: Make, tmp_path: Path) -> None:
    small = {"task_options": "hidden_size = 4", "num_server_rounds": 1, "batch_size": 128}
    results = [
        finish(sines(tiny, run_dir=str(tmp_path / str(nodes)), **small), num_nodes=nodes) for nodes in (1, 3)
    ]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]


@pytest.mark.rounding
def test_a_clients_own_test_rows_are_its_last(tiny: Make) -> None:
    config = sines(tiny, task_options="hidden_size = 4", num_server_rounds=1, batch_size=128)
    finish({**config, "local-test-fraction": 0.25, "fraction-evaluate": 1.0, "validation-fraction": 0.0})
    lines = (Path(str(config["run-dir"])) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    # Persistence needs no training, so what it scores tells which rows were judged.
    rows = load_dataset(TaskConfig(dataset="sine", validation_fraction=0.0)).train
    last = np.concatenate([np.flatnonzero(rows["series"].numpy() == number)[-192:] for number in range(5)])
    errors = (rows["window"][:, -1] - rows["target"])[last]
    reported = json.loads(lines[-1])["evaluate"]["persistence-rmse"]
    assert reported == pytest.approx(float(errors.square().mean().sqrt()))


@pytest.mark.rounding
def test_it_learns_a_sine_to_less_than_half_of_persistence(tiny: Make) -> None:
    """A perfect forecast is at 0.26, this one at 0.30 to 0.31 over two seeds and instruction sets."""
    result = finish(sines(tiny, task_options="hidden_size = 32", learning_rate=0.01, num_server_rounds=2))
    assert result["final"]["rmse-over-persistence"] < 0.5


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "bar"), [("stocks", 1.05), ("sine", 0.5)])
def test_federated_is_as_good_as_centralized(tmp_path: Path, dataset: str, bar: float) -> None:
    results = {}
    for name in ("lstm-forecast", "lstm-forecast-centralized"):
        scenario = load_scenario(Path("simulations/configs") / f"{name}.toml", [f"dataset={dataset}"])
        results[name] = finish({**scenario, "run-dir": str(tmp_path / name)})["final"]
    federated, centralized = results["lstm-forecast"], results["lstm-forecast-centralized"]
    assert federated["rmse-over-persistence"] <= bar
    assert federated["rmse"] <= 1.05 * centralized["rmse"]
