"""Steps without what torch wraps around them are torch's own steps."""

from collections.abc import Callable

import pytest
import torch
from test_optimizers import OPTIONS, ROWS, TASK, Matrix, make
from torch.optim import Optimizer

from models.optimizers import OPTIMIZERS
from models.stepping import clear_gradients, step


def trained(name: str, clear: Callable[[Optimizer], None], take: Callable[[Optimizer], None]) -> torch.Tensor:
    model = Matrix()
    ((objective, optimizer),) = make(
        model, optimizer=name, learning_rate=0.01, optimizer_options=OPTIONS.get(name, "")
    )
    for _ in range(5):
        clear(optimizer)
        objective.loss(model, ROWS.columns).backward()
        take(optimizer)
    assert torch.is_grad_enabled()
    return model.weight.detach()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_steps_as_torch_does(name: str) -> None:
    ours = trained(name, clear_gradients, step)
    assert torch.equal(ours, trained(name, Optimizer.zero_grad, lambda optimizer: optimizer.step()))
    assert not torch.equal(ours, Matrix().weight)


def test_hooks_are_called_before_and_after() -> None:
    model = Matrix()
    ((_, optimizer),) = make(model, learning_rate=1.0)
    model.weight.grad = torch.ones(2, 2)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(model.weight[0, 0].item()))
    optimizer.register_step_post_hook(lambda *_: seen.append(model.weight[0, 0].item()))
    step(optimizer)
    assert seen == [0.5, -0.5]


def test_a_schedule_is_told_of_the_step(recwarn: pytest.WarningsRecorder) -> None:
    ((_, optimizer),) = make(Matrix())
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    step(optimizer)
    schedule.step()  # warns where no step went before
    assert not recwarn


def test_cleared_gradients_are_gone() -> None:
    model = Matrix()
    ((_, optimizer),) = make(model)
    (model.weight.sum() + TASK.dataset.train["x"].sum()).backward()
    clear_gradients(optimizer)
    assert model.weight.grad is None


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9},
        {"momentum": 0.0},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.5, "weight_decay": 0.1},
        {"maximize": True},
    ],
)
def test_sgd_steps_many_weights_as_torch_does(options: dict) -> None:
    # The second layer has no gradient at first, so that its momentum begins later than the first one's.
    def trained(take: Callable[[Optimizer], None]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 5), torch.nn.Linear(2, 2))
        optimizer = torch.optim.SGD(layers.parameters(), lr=0.05, **options)
        for number in range(6):
            clear_gradients(optimizer)
            seen = layers[0](torch.rand(2, 3))
            (seen if number < 2 else layers[1](seen.relu())).square().sum().backward()
            take(optimizer)
        held = [slots.get("momentum_buffer") for slots in optimizer.state.values()]
        return [*map(torch.Tensor.detach, layers.parameters()), *(each for each in held if each is not None)]

    ours, torchs = trained(step), trained(lambda optimizer: optimizer.step())
    assert len(ours) == len(torchs)
    assert all(map(torch.equal, ours, torchs))
