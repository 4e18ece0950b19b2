"""Parts of a model that not every client trains: who moves them, and what each strategy makes of it.

Three clients draw weights towards their targets; the second has no right, the third no left one. One step of
SGD at rate 1/2 goes half of the way, so that every number here is exact.
"""

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from finished import finish
from flwr.app import Message, MessageType, MetricRecord, RecordDict
from safetensors.torch import load_file
from torch import Tensor, nn

from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.datasets import DATASETS
from models.data.source import Source
from models.state import build_model, federated_names, part_names
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task
from server.cohort_result import CohortResult
from server.metric_checks import Expected, check_train_metrics
from server.part_means import PartMeans
from strategies.wire.arrays import hold, views
from strategies.wire.identity import let_messages_be_made
from strategies.wire.reply import ARRAYS, METRICS

Make = Callable[..., dict[str, Value]]
TARGET, ROWS = (8.0, 16.0, 32.0), (1, 3, 4)
"""Of each client, and how many examples it has."""
HAS = {"left": (1, 1, 0), "right": (1, 0, 1)}


def targets(config: TaskConfig) -> Dataset:
    client = np.repeat(np.arange(3), ROWS)
    columns = {"target": torch.tensor(TARGET)[client]}
    for part, has in HAS.items():
        columns[part] = torch.tensor(has)[client].float()
    every = Examples(columns)
    return Dataset("targets", "targets", every, every, client=client)


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("both", "left", "right"):
            setattr(self, name, nn.Parameter(torch.zeros(1)))


class Drawn(Task):
    """Move `both` towards the target, and `left` and `right` where there is such a thing."""

    kind = "targets"
    metric = "distance"
    stackable = True
    parts = MappingProxyType({"left": ("left",), "right": ("right*",)})

    def __init__(self, dataset: Dataset, wrong: str = "", decay: float = 0.0) -> None:
        super().__init__(dataset)
        self.wrong, self.decay = wrong, decay
        if wrong == "overlap":
            self.parts = {"left": ("*t",), "right": ("right",)}

    def build(self) -> nn.Module:
        point = Point()
        if self.wrong == "statistic":
            point.register_buffer("right_mean", torch.zeros(1))
        return point

    @property
    def objectives(self) -> Sequence[Objective]:
        return [Objective("loss", self.loss, optimizer=OptimizerChoice("sgd", 0.5))]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        off = {name: (weight - batch["target"]).square() / 2 for name, weight in model.named_parameters()}
        # Whatever a client does to a part that it does not train, such as decay, is not to be seen.
        strayed = self.decay * (model.left + model.right)  # type: ignore[operator]
        return (
            off["both"] + off["left"] * batch["left"] + off["right"] * batch["right"]
        ).mean() + strayed.sum()

    def trained_parts(self, data: Examples) -> Collection[str]:
        return ["top"] if self.wrong == "unknown" else [part for part in HAS if data[part].any()]

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        return {"distance": (0.0, 1)}


@pytest.fixture
def rest(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    """Return a function that runs, and returns the weights at the end."""
    monkeypatch.setitem(DATASETS, "targets", Source("targets", targets))

    def run(num_nodes: int = 1, **changes: Any) -> dict[str, float]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        small = {"num_server_rounds": 1, "batch_size": 8, "num_clients": 3, "partitioner": "natural"}
        given = {"task": "test_part_means:Drawn", "dataset": "targets", **small, **changes}
        result = finish(tiny(run_dir=str(folder), validation_fraction=0.0, **given), num_nodes)
        weights = load_file(folder / "models" / "last.safetensors")
        run.rows = result["rows"]  # type: ignore[attr-defined]
        return {name: float(weights[name]) for name in ("both", "left", "right")}

    return run


MEANS = {
    "both": (4 + 3 * 8 + 4 * 16) / 8,
    "left": (4 + 3 * 8) / 4,
    "right": float(np.float32((4 + 4 * 16) / 5)),
}
"""Of the clients' 4, 8 and 16, by their examples."""
ALIKE = {"both": (4 + 8 + 16) / 3, "left": (4 + 8) / 2, "right": (4 + 16) / 2}
"""Where all count alike."""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_nodes": 3},
        {"engine": "stacked"},
        {"task_options": "decay = 0.25"},
        {"task_options": "decay = 0.25", "engine": "stacked"},
        {"strategy": "FedProx", "strategy_options": "proximal_mu = 0.5"},
        {"strategy": "FedNova"},
        {"strategy": "Ditto"},
        {"compression": "float32"},
        {"max_update_norm": 1000.0},
        {"num_nodes": 3, "secure_aggregation": True},
        {"buffer_size": 3, "client_speeds": "seconds = 1.0"},
    ],
    ids=str,
)
def test_a_part_is_the_mean_of_those_who_train_it(
    rest: Callable[..., dict[str, float]], changes: dict[str, Any]
) -> None:
    found = rest(**changes)
    if "decay" in str(changes.get("task_options")):  # which moves those that are trained, by 1/2 * 1/4
        found |= {part: found[part] + 0.125 for part in HAS}
    assert found == pytest.approx(MEANS, rel=1e-6)
    told = rest.rows[-1]["train"]  # type: ignore[attr-defined]
    assert (told["trains-left"], told["trains-right"]) == (4 / 8, 5 / 8)


@pytest.mark.parametrize(("strategy", "engine"), [("Scaffold", "loop"), ("FedDyn", "stacked")])
def test_corrected_clients_come_to_rest_where_those_who_train_a_part_want_it(
    rest: Callable[..., dict[str, float]], strategy: str, engine: str
) -> None:
    best = {name: 2 * mean for name, mean in ALIKE.items()}
    found = rest(strategy=strategy, engine=engine, num_server_rounds=60, evaluate_every=0, checkpoint_every=0)
    assert found == pytest.approx(best, rel=1e-4)


def test_clients_may_count_by_what_they_tell_of_a_part(rest: Callable[..., dict[str, float]]) -> None:
    """The first two train `left`, and the third does not."""
    assert rest(strategy="FedAvg", strategy_options="weighted_by_key = 'trains-left'")["both"] == 6.0
    with pytest.raises(
        UserError, match="none replies it: they reply loss, num-examples, trains-left, trains-r"
    ):
        rest(strategy="FedAvg", strategy_options="weighted_by_key = 'trains-top'")


def test_what_nobody_of_a_round_trains_stays(rest: Callable[..., dict[str, float]]) -> None:
    """Of one client a round, another than the last is drawn at times."""
    found = [rest(clients_per_round=1, seed=seed) for seed in range(6)]
    assert {tuple(each.values()) for each in found} == {(4.0, 4.0, 4.0), (8.0, 8.0, 0.0), (16.0, 0.0, 16.0)}


def test_who_looks_at_single_replies_sees_parts_that_have_not_moved(
    rest: Callable[..., dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    assert rest(strategy="FedMedian") == {"both": 8.0, "left": 4.0, "right": 4.0}
    assert "FedMedian averages no part by itself" in caplog.text


def test_a_private_mean_is_over_all_clients(rest: Callable[..., dict[str, float]]) -> None:
    """What one client may add to it is bounded by the weight of all."""
    options = "noise_multiplier = 0.0, clipping_norm = 1e6, noise = 'repeatable'"
    found = rest(strategy="DifferentialPrivacyClientSideFixedClipping", strategy_options=options)
    assert found["left"] < ALIKE["left"]


def mean_reply(arrays: dict[str, float], **metrics: float) -> CohortResult:
    let_messages_be_made()
    content = RecordDict(
        {
            ARRAYS: hold({name: np.array([value]) for name, value in arrays.items()}),
            METRICS: MetricRecord(metrics),
        }
    )
    return CohortResult(replies=[Message(content, reply_to=Message(RecordDict(), 0, MessageType.TRAIN))])


def read(cohort: CohortResult) -> dict[str, float]:
    return {name: float(array[0]) for name, array in views(cohort.replies[0].content[ARRAYS]).items()}


SENT = {name: np.array([1.0], np.float32) for name in ("both", "left", "right")}


def test_aux_tensors_are_averaged_with_their_weights() -> None:
    given = {"both": 3.0, "left": 3.0, "right": 3.0, "control/left": 0.5, "control/both": 0.5}
    cohort = mean_reply(given, **{"trains-left": 0.25, "trains-right": 0.0})
    PartMeans({"left": ("left",), "right": ("right",)}).average_by_part(cohort, SENT)
    moved = {"left": 1 + 2 / 0.25, "right": 1.0, "control/left": 0.5 / 0.25}
    assert read(cohort) == {**given, **moved}


def test_a_part_moves_no_further_than_an_update_may() -> None:
    """Whoever has moved a part, and says that it does not train it, gains nothing by that."""
    cohort = mean_reply({"left": 4.0, "right": 5.0}, **{"trains-side": 0.125})
    PartMeans({"side": ("left", "right")}, longest=5.0).average_by_part(cohort, SENT)
    assert read(cohort) == {"left": 1 + 3.0, "right": 1 + 4.0}, "a movement of (24, 32), cut to length 5"


def test_a_client_must_say_which_parts_it_trains(
    rest: Callable[..., dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.train.trained_parts", lambda *_: {"trains-left": 1.0, "trains-right": 1.5})
    with pytest.raises(Exception, match="failed"):
        rest()


def test_parts_that_cannot_be_are_refused(rest: Callable[..., dict[str, float]]) -> None:
    with pytest.raises(UserError, match=r"^right is of two parts, left and right: name it in one$"):
        rest(task_options="wrong = 'overlap'")
    with pytest.raises(UserError, match=r"^not every client trains the part right, and it sends statistics"):
        rest(task_options="wrong = 'statistic'")
    with pytest.raises(Exception, match="failed"):
        rest(task_options="wrong = 'unknown'")


def test_parts_are_of_what_is_averaged() -> None:
    task = Drawn(targets(TaskConfig()))
    task.local = ("right",)
    names = federated_names(build_model(task, 1), task)
    assert part_names(task, names) == {"left": ("left",), "right": ()}
    assert math.isinf(PartMeans().longest)


@pytest.mark.parametrize("strategy", ["Scaffold", "FedDyn"])
def test_a_sum_over_all_clients_needs_all_of_them_in_every_round(
    rest: Callable[..., dict[str, float]], strategy: str
) -> None:
    line = rf"{strategy} adds up what all clients have replied .* \(left, right\): let all clients take part"
    with pytest.raises(UserError, match=line):
        rest(strategy=strategy, clients_per_round=2)
    rest(strategy=strategy, clients_per_round=3)


@pytest.mark.parametrize(("told", "valid"), [(0, True), (1.0, True), (1e-300, False), (0.5, False)])
def test_one_client_trains_a_part_or_does_not(told: float, valid: bool) -> None:
    expected, metrics = Expected(flags=["trains-left"]), {"num-examples": 3, "trains-left": told}
    if valid:
        check_train_metrics(metrics, expected, "")
    else:
        with pytest.raises(ValueError, match="its trains-left must be 0 or 1, got"):
            check_train_metrics(metrics, expected, "")


@pytest.mark.parametrize("share", [-1e-10, 1e-300])
def test_a_rounding_of_nobody_is_nobody(share: float) -> None:
    cohort = mean_reply({"left": 3.0, "right": 3.0}, **{"trains-left": share})
    PartMeans({"left": ("left",)}).average_by_part(cohort, SENT)
    assert read(cohort) == {"left": 1.0, "right": 3.0}
