"""Every optimizer of torch.optim: made by name, checked, and continued by what a client remembers."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clients.state import ClientState, ClientStates, ModelMemory, optimizer_state, restore_optimizers
from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.optimizers import OPTIMIZERS, UNUSABLE, make_optimizers
from models.task import Metrics, Objective, Task

ROWS = Examples({"x": torch.tensor([[1.0, 2.0], [3.0, -1.0]])})


class Matrix(nn.Module):
    """One matrix, which even those optimizers take that know nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -0.25], [1.0, 2.0]]))


class Shrink(Task):
    kind = "toy"
    metric = "loss"

    def build(self) -> nn.Module:
        return Matrix()

    @property
    def objectives(self) -> Sequence[Objective]:
        return [Objective("loss", lambda model, batch: (batch["x"] @ model.weight).square().mean())]

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        return {}


TASK = Shrink(Dataset("toy", "toy", train=ROWS, test=ROWS))


def make(model: nn.Module, **config: object):  # type: ignore[no-untyped-def]
    return make_optimizers(TASK, model.named_parameters(), TaskConfig(**config))  # type: ignore[arg-type]


def step(model: nn.Module, optimizers, times: int) -> None:  # type: ignore[no-untyped-def]
    for _ in range(times):
        for objective, optimizer in optimizers:
            optimizer.zero_grad()
            loss: Tensor = objective.loss(model, ROWS.columns)
            loss.backward()
            optimizer.step()


def test_all_of_torch_are_known() -> None:
    assert {"sgd", "adamw", "radam", "nadam", "rprop", "asgd", "adafactor", "adagrad"} < OPTIMIZERS.keys()
    assert not OPTIMIZERS.keys() & UNUSABLE.keys()


OPTIONS = {"sgd": "momentum = 0.9", "rmsprop": "momentum = 0.5, centered = true", "adam": "amsgrad = true"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_on_from_what_a_client_remembers(name: str, tmp_path: Path) -> None:
    config = {"optimizer": name, "learning_rate": 0.01, "optimizer_options": OPTIONS.get(name, "")}
    straight, paused = Matrix(), Matrix()
    step(straight, make(straight, **config), times=5)
    optimizers = make(paused, **config)
    step(paused, optimizers, times=2)
    started = paused.weight.detach().clone()
    kept = [
        slot for _, optimizer in optimizers for slots in optimizer.state.values() for slot in slots.values()
    ]
    assert all(slot is None or isinstance(slot, Tensor) for slot in kept)  # all that a state file can hold
    remembered = ClientState(ModelMemory(optimizer=optimizer_state(optimizers)))
    ClientStates(tmp_path).save(0, 1, remembered, 0)
    optimizers = make(paused, **config)
    restore_optimizers(optimizers, ClientStates(tmp_path).load(0, before=2).shared.optimizer)
    step(paused, optimizers, times=3)
    assert torch.equal(paused.weight, straight.weight)
    assert not torch.equal(paused.weight, started)


def test_names_are_in_any_case() -> None:
    ((_, optimizer),) = make(Matrix(), optimizer="AdamW")
    assert type(optimizer) is torch.optim.AdamW
    ((_, optimizer),) = make(Matrix(), optimizer="adam", optimizer_options="betas = [0, 0.5], eps = 1")
    assert optimizer.defaults["betas"] == (0.0, 0.5)
    assert optimizer.defaults["eps"] == 1.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm': did you mean adam or "),
        (
            {"optimizer": "LBFGS"},
            "optimizer 'lbfgs' cannot train here: it wants the loss several times a step",
        ),
        ({"optimizer": "sparseadam"}, "optimizer 'sparseadam' cannot train here: it wants sparse gradients"),
        ({"optimizer_options": "momentum = 'x'"}, "momentum must be a number, got 'x'"),
        ({"optimizer_options": "nesterov = 1"}, "nesterov must be true or false, got 1"),
        (
            {"optimizer_options": "nesterovv = true"},
            "unknown option of optimizer sgd 'nesterovv': did you mean",
        ),
        ({"optimizer_options": "lr = 1"}, "'lr' is no option of optimizer sgd: set learning-rate"),
        (
            {"optimizer_options": "differentiable = true"},
            "'differentiable' is no option of optimizer sgd: it is",
        ),
        ({"optimizer_options": "momentum = -1"}, "optimizer sgd does not fit: Invalid momentum value: -1.0"),
        (
            {"optimizer": "adam", "optimizer_options": "betas = 0.9"},
            "betas must be a list of 2 numbers, got 0.9",
        ),
        (
            {"optimizer": "adam", "optimizer_options": "betas = [0.9]"},
            "betas must be a list of 2 numbers, got [0",
        ),
        ({"optimizer": "adam", "optimizer_options": "betas = [0.9, 'x']"}, "betas must be a number, got 'x'"),
        ({"optimizer": "muon", "engine": "stacked"}, 'engine = "stacked" does not fit optimizer muon'),
    ],
)
def test_what_does_not_fit_is_one_line(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        make(Matrix(), **config)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_muon_says_that_it_takes_matrices_alone() -> None:
    if "muon" not in OPTIMIZERS:
        pytest.skip("this torch has no Muon")
    model = Matrix()
    model.bias = nn.Parameter(torch.zeros(2))
    with pytest.raises(UserError, match="optimizer muon does not fit: Muon only supports 2D parameters"):
        make(model, optimizer="muon")


def test_weight_decay_leaves_alone_what_the_objective_names() -> None:
    """The gradients are zero, so that decay alone moves a weight."""

    class Decays(Shrink):
        @property
        def objectives(self) -> Sequence[Objective]:
            return [Objective("loss", lambda model, batch: torch.zeros(()), not_decayed=("*bias", "norm.*"))]

    model = nn.ModuleDict({"dense": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    config = TaskConfig(optimizer="adamw", learning_rate=0.5, optimizer_options="weight_decay = 0.5")
    ((_, optimizer),) = make_optimizers(Decays(TASK.dataset), model.named_parameters(), config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    assert torch.equal(after["dense.weight"], before["dense.weight"] * 0.75)
    assert [name for name in before if not torch.equal(after[name], before[name])] == ["dense.weight"]
