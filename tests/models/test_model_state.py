"""One memory is one weight; parameters apart from statistics; frozen modules stay whole."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.state import (
    build_model,
    federated_names,
    frozen_names,
    model_state,
    shareable_names,
    start_training,
    tied_names,
)
from models.task import Metrics, Objective, Task


class Toy(Task):
    """A task of any module."""

    kind = "numbers"
    metric = "loss"

    def __init__(
        self,
        build: Callable[[], nn.Module],
        local: tuple[str, ...] = (),
        freeze: tuple[str, ...] = (),
        trained: tuple[str, ...] = ("*",),
    ) -> None:
        rows = Examples({"x": torch.zeros(1)})
        super().__init__(Dataset("numbers", "numbers", rows, rows))
        self.make, self.local, self.freeze, self.trained = build, local, freeze, trained

    def build(self) -> nn.Module:
        return self.make()

    @property
    def objectives(self) -> list[Objective]:
        return [Objective("loss", lambda model, batch: torch.zeros(()), self.trained)]

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        return {}


def tied() -> nn.Module:
    """Return a decoder that shares the embedding's weight, as language models have it."""
    model = nn.ModuleDict({"embedding": nn.Embedding(3, 2), "decoder": nn.Linear(2, 3)})
    model["decoder"].weight = model["embedding"].weight
    return model


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))


STATISTICS = ("1.running_mean", "1.running_var")


def test_a_tied_weight_has_one_name() -> None:
    model = build_model(Toy(tied), 1)
    assert list(model.state_dict()) == ["embedding.weight", "decoder.weight", "decoder.bias"]
    assert list(model_state(model)) == ["embedding.weight", "decoder.bias"]
    assert tied_names(model)["embedding.weight"] == ("embedding.weight", "decoder.weight")
    assert federated_names(model, Toy(tied)).all == ("embedding.weight", "decoder.bias")


@pytest.mark.parametrize("pattern", ["embedding.*", "decoder.weight"])
def test_a_tied_weight_is_local_by_any_of_its_names(pattern: str) -> None:
    assert shareable_names(tied(), (pattern,)) == ("decoder.bias",)


def test_parts_of_one_memory_that_do_not_overlap_are_weights_of_their_own() -> None:
    """As an LSTM on a GPU has its weights in one piece."""

    def build() -> nn.Module:
        whole, model = torch.zeros(6), nn.Module()
        model.first, model.second = nn.Parameter(whole[:2]), nn.Parameter(whole[2:])
        return model

    assert list(model_state(build_model(Toy(build), 1))) == ["first", "second"]


def test_a_weight_that_is_a_view_of_another_is_refused() -> None:
    def build() -> nn.Module:
        model = nn.Module()
        model.first = nn.Parameter(torch.zeros(2, 3))
        model.second = nn.Parameter(model.first.detach().T)
        return model

    with pytest.raises(UserError, match="first and second share memory, and neither is the other as a whole"):
        build_model(Toy(build), 1)


def test_empty_weights_are_not_tied() -> None:
    def build() -> nn.Module:
        return nn.ParameterDict({name: nn.Parameter(torch.zeros(size)) for name, size in SIZES.items()})

    assert list(model_state(build_model(Toy(build), 1))) == list(SIZES)


SIZES = {"a": 0, "b": 0, "c": 1}


def test_what_an_optimizer_trains_apart_from_statistics() -> None:
    names = federated_names(build_model(Toy(normed), 1), Toy(normed))
    assert names.parameters == ("0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias")
    assert names.statistics == STATISTICS


def test_a_parameter_that_no_objective_trains_is_not_the_strategys() -> None:
    task = Toy(normed, trained=("0.*", "1.*"))
    names = federated_names(build_model(task, 1), task)
    assert names.parameters == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert names.statistics == (*STATISTICS, "2.weight", "2.bias")


@pytest.mark.parametrize("freeze", [("1.*",), ("1.weight", "1.bias"), ("1.running_mean",)])
def test_the_statistics_of_a_frozen_module_are_frozen(freeze: tuple[str, ...]) -> None:
    task = Toy(normed, freeze=freeze)
    model = build_model(task, 1)
    assert set(STATISTICS) <= set(frozen_names(model, freeze))
    assert federated_names(model, task).statistics == ()
    model.eval()
    start_training(model, freeze)
    assert [module.training for module in model] == [True, False, True]
    model(torch.ones(4, 2))
    assert model_state(model)["1.running_mean"].tolist() == [0.0, 0.0]


def test_a_module_with_one_trained_parameter_is_not_frozen() -> None:
    task = Toy(normed, freeze=("1.weight",))
    model = build_model(task, 1)
    assert frozen_names(model, task.freeze) == ("1.weight",)
    assert federated_names(model, task).statistics == STATISTICS


class Odd(nn.Module):
    """A linear layer, and beside it what `change` adds."""

    def __init__(self, change: Callable[[nn.Module], object]) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        change(self)


class WithExtraState(nn.Linear):
    """A layer whose state is no tensor alone."""

    def get_extra_state(self) -> dict[str, int]:
        return {"scale": 1}

    def set_extra_state(self, state: object) -> None:
        pass


def adding(name: str, part: nn.Module) -> Callable[[nn.Module], object]:
    return lambda model: model.add_module(name, part)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.register_buffer("shadow", m.linear.weight.detach()), "is the memory of parameter"),
        (lambda m: m.register_parameter("w", nn.Parameter(torch.ones(2) * 1j)), "w is complex"),
        (lambda m: m.register_buffer("edges", torch.eye(2).to_sparse()), "edges is a sparse_coo tensor"),
        (adding("lazy", nn.LazyLinear(2)), "lazy.weight has no shape yet"),
        (adding("ghost", nn.Linear(2, 2, device="meta")), "ghost.weight is a meta tensor"),
        (adding("short", nn.Linear(2, 2, dtype=torch.bfloat16)), "short.weight is bfloat16"),
        (adding("odd", WithExtraState(2, 2)), "odd._extra_state is dict"),
        (adding("parts", nn.ParameterDict({"a/b": torch.ones(1)})), "parts.a/b has a slash"),
    ],
)
def test_what_cannot_be_averaged_is_a_line(change: Callable[[nn.Module], object], why: str) -> None:
    with pytest.raises(UserError, match=why):
        build_model(Toy(lambda: Odd(change)), 1)


def test_complex_weights_may_stay_with_the_client() -> None:
    def change(model: nn.Module) -> None:
        model.register_parameter("w", nn.Parameter(torch.zeros(2, dtype=torch.cfloat)))

    task = Toy(lambda: Odd(change), local=("w",))
    assert federated_names(build_model(task, 1), task).all == ("linear.weight", "linear.bias")
