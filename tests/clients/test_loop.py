"""The one training loop, on networks small enough to do by hand."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from requests_to_clients import request_of
from torch import nn

from clients.loop import local_batches, train_epochs
from clients.rules import RuleAtWork
from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.optimizers import make_optimizers
from models.state import federated_names
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task, merge_metrics
from strategies.algorithms.fedprox import Proximal


class TwoWeights(Task):
    """Two scalars, each with an objective of its own, as a GAN has two networks."""

    kind = "numbers"
    metric = "loss"

    def build(self) -> nn.Module:
        model = nn.Module()
        model.first = nn.Parameter(torch.tensor(1.0))
        model.second = nn.Parameter(torch.tensor(10.0))
        model.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        return model

    @property
    def objectives(self) -> Sequence[Objective]:
        def loss(name: str) -> object:
            return lambda model, batch: (getattr(model, name) * batch["x"]).mean()

        plain = OptimizerChoice("sgd", 0.1)
        return [Objective(name, loss(name), (name,), plain) for name in ("first", "second")]  # type: ignore[arg-type]

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        for rows in torch.arange(len(data)).split(batch_size):
            yield {"x": data["x"][rows]}

    def after_step(self, model: nn.Module) -> None:
        model.steps += 1

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        return {"loss": (float(data["x"].sum()), len(data))}


ROWS = Examples({"x": torch.tensor([1.0, 3.0, 8.0])})


@pytest.fixture
def task() -> TwoWeights:
    return TwoWeights(Dataset("numbers", "numbers", ROWS, ROWS))


def run(
    task: TwoWeights, model: nn.Module, rows: Examples = ROWS, mu: float | None = None
) -> dict[str, float]:
    optimizers = make_optimizers(task, model.named_parameters(), TaskConfig())
    if mu is not None:
        sent = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        rule = Proximal({"proximal-mu": mu})
        RuleAtWork([rule], model.named_parameters(), optimizers, request_of(sent), lambda _, weight: weight)
    return train_epochs(
        task,
        model,
        rows,
        optimizers,
        generator=torch.Generator(),
        local_epochs=2,
        batch_size=2,
        device=torch.device("cpu"),
    )


@pytest.mark.rounding
def test_every_objective_trains_its_own_parameters(task: TwoWeights) -> None:
    model = task.build()
    losses = run(task, model)
    # Gradients are the batch means 2 and 8, twice: 1 - 0.1 * 20 and 10 - 0.1 * 20.
    assert model.first.item() == pytest.approx(-1.0)
    assert model.second.item() == pytest.approx(8.0)
    assert model.steps.item() == 4
    # Losses before each step, weighted by examples: the weight is 1, .8, 0 and -.2; the batches are of
    # two rows with mean 2, and of one row, 8.
    assert losses["first"] == pytest.approx((1 * 2 * 2 + 0.8 * 8 + 0 * 2 * 2 - 0.2 * 8) / 6)


@pytest.mark.rounding
def test_a_local_rule_reaches_every_objective(task: TwoWeights) -> None:
    model = task.build()
    run(task, model, mu=1.0)
    w = 0.0  # distance from the start, by hand: w -= 0.1 * (g + w)
    for gradient in (2, 8, 2, 8):
        w -= 0.1 * (gradient + w)
    assert model.first.item() == pytest.approx(1 + w)
    assert model.second.item() == pytest.approx(10 + w)


def test_a_loss_that_is_not_finite_is_an_error(task: TwoWeights) -> None:
    with pytest.raises(FloatingPointError, match="first is nan after 2 examples"):
        run(task, task.build(), Examples({"x": torch.tensor([float("nan")])}))


def test_the_run_config_overrides_the_tasks_optimizer(task: TwoWeights) -> None:
    config = TaskConfig(optimizer="adam", learning_rate=0.5, optimizer_options="betas = [0.1, 0.2]")
    (_, optimizer), _ = make_optimizers(task, task.build().named_parameters(), config)
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["lr"] == 0.5
    assert tuple(optimizer.defaults["betas"]) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TaskConfig(optimizer="sdg"), "unknown optimizer 'sdg': did you mean sgd"),
        (
            TaskConfig(optimizer_options="momentun = 0.9"),
            "unknown option of optimizer sgd 'momentun': did you mean momentum",
        ),
        (
            TaskConfig(optimizer_options="momentum = -1.0"),
            "optimizer sgd does not fit: Invalid momentum",
        ),
    ],
)
def test_an_optimizer_that_cannot_be_made(task: TwoWeights, config: TaskConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_optimizers(task, task.build().named_parameters(), config)


def test_what_is_federated(task: TwoWeights) -> None:
    model = task.build()
    assert federated_names(model, task).all == ("first", "second")
    task.local = ("f*",)
    assert federated_names(model, task).all == ("second",)
    task.local = ()
    model.get_parameter("second").requires_grad_(False)
    assert federated_names(model, task).all == ("first",)


def test_metrics_merge_as_sums() -> None:
    assert merge_metrics([{"a": (1.0, 2.0)}, {"a": (3.0, 4.0), "b": (1.0, 1.0)}]) == {
        "a": (4.0, 6.0),
        "b": (1.0, 1.0),
    }


@pytest.mark.rounding
def test_an_objective_clips_and_warms_up(task: TwoWeights) -> None:
    weight = nn.Parameter(torch.zeros(1))
    model = nn.ParameterDict({"w": weight})
    objective = Objective(
        "x", lambda *_: weight, optimizer=OptimizerChoice("sgd", 1.0), max_grad_norm=2, warmup_steps=4
    )

    class One(TwoWeights):
        objectives = (objective,)  # type: ignore[assignment]

    ((_, optimizer),) = make_optimizers(One(task.dataset), model.named_parameters(), TaskConfig())
    positions = []
    for _ in range(5):
        weight.grad = torch.tensor([10.0])
        optimizer.step()
        positions.append(weight.item())
    assert positions == pytest.approx([-0.5, -1.5, -3.0, -5.0, -7.0])  # steps of 2 times 1/4, 2/4, 3/4, 1, 1


@pytest.mark.parametrize(("epochs", "num_batches"), [(0.01, 1), (0.7, 7), (1.0, 10), (1.7, 17), (2.01, 21)])
def test_a_part_of_an_epoch_is_a_part_of_its_batches(
    task: TwoWeights, epochs: float, num_batches: int
) -> None:
    data = Examples({"x": torch.arange(20.0)})
    batches = local_batches(task, task.build(), data, torch.Generator(), 2, epochs)
    assert [len(batch["x"]) for batch in batches] == [2] * num_batches
