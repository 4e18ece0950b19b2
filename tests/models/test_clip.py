"""Which text belongs to which picture: the loss by hand, rows that are no pairs, what the encoders learn."""

import math
from pathlib import Path

import pytest
import torch
from finished import Make, finish, finish_alike
from places import CONFIGS
from test_multimodal import BOTH, SMALL, toy
from torch import nn
from torch.nn import functional as F

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.attackers import check_label_flip
from models.multimodal import clip
from models.multimodal.classification import MultimodalClassification
from models.multimodal.clip import FIRST, LARGEST, PairContrast, pair_loss
from models.state import build_model, federated_names, part_names
from simulations.scenario import load_scenario


@pytest.mark.rounding
def test_the_loss_by_hand() -> None:
    """The first pair points the same way, the second to right angles; cosines count twice."""
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    e = math.exp
    by_image = [-math.log(e(2) / (e(2) + e(-2))), -math.log(1 / 2)]
    by_text = [-math.log(e(2) / (e(2) + e(0))), -math.log(e(0) / (e(-2) + e(0)))]
    found = pair_loss(image, text, torch.tensor(math.log(2.0)), torch.ones(2))
    assert float(found) == pytest.approx((sum(by_image) + sum(by_text)) / 4, rel=1e-6)


@pytest.mark.rounding
def test_rows_that_are_no_pairs_are_neither_asked_nor_found() -> None:
    image, text = (
        F.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(n)), dim=1) for n in (1, 2)
    )
    pairs, scale = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0]), torch.tensor(FIRST)
    chosen = pairs > 0
    alone = pair_loss(image[chosen], text[chosen], scale, torch.ones(3))
    assert float(pair_loss(image, text, scale, pairs)) == pytest.approx(float(alone), rel=1e-6)
    assert float(pair_loss(image, text, scale, torch.zeros(5))) == 0


@pytest.mark.rounding
def test_cosines_are_multiplied_by_100_at_most() -> None:
    image, text = torch.eye(3), torch.eye(3).roll(1, 0)
    most = pair_loss(image, text, torch.tensor(LARGEST), torch.ones(3))
    assert float(pair_loss(image, text, torch.tensor(LARGEST + 5), torch.ones(3))) == float(most)
    assert float(most) == pytest.approx(100, rel=1e-3)


def test_a_client_without_pairs_trains_and_counts_nothing() -> None:
    task = PairContrast(toy([1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1]))
    model = build_model(task, 1)
    assert part_names(task, federated_names(model, task)) == {"pairs": tuple(model.state_dict())}
    data = task.dataset.train
    assert (task.trained_parts(data), task.num_examples(data)) == ([], 0)
    (objective,) = task.objectives
    for rows in (torch.arange(6), torch.arange(2)):  # of the latter no column of texts is there
        batch = task.batch(data.at(rows), torch.Generator())
        loss = objective.loss(model, batch)
        loss.backward()
        assert (loss.item(), objective.terms(batch)) == (0, 0)
    assert not any(weight.grad.any() for weight in model.parameters() if weight.grad is not None)
    paired = PairContrast(toy(BOTH, [1, 1, 1, 1, 0, 0]))
    assert paired.trained_parts(paired.dataset.train) == ["pairs"]
    assert paired.num_examples(paired.dataset.train) == 4


def test_a_classifier_can_start_from_the_encoders() -> None:
    encoders = build_model(PairContrast(toy(BOTH, BOTH)), 1).state_dict()
    classifier = build_model(MultimodalClassification(toy(BOTH, BOTH)), 1).state_dict()
    shared = {name for name in classifier if name.startswith("encoders.")}
    assert shared == {name for name in encoders if name.startswith("encoders.")}
    assert all(encoders[name].shape == classifier[name].shape for name in shared)


class Sorted(nn.Module):
    """Points by class: pictures along the first or the second axis, and texts so too, but for the first."""

    def __init__(self) -> None:
        super().__init__()
        task = PairContrast(toy(BOTH, BOTH))
        self.encoders = task.encoders()
        self.scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        image = torch.eye(2)[batch["label"]]
        text = image.clone()
        text[0] = torch.tensor([0.0, 1.0])
        return {"image": image, "text": text}


@torch.no_grad()
def test_neighbours_of_the_same_class_are_counted_among_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five pairs the first text, of class 0, points to class 1; the sixth row has no picture."""
    monkeypatch.setattr(clip, "CANDIDATES", 5)
    task = PairContrast(toy([1, 1, 1, 1, 1, 0], BOTH))
    sums = task.evaluate(Sorted(), task.dataset.test, torch.Generator())
    assert sums["text-to-image"] == (4, 5)
    assert sums["image-to-text"] == (3, 5), "both pictures of class 1 are nearest to the first text"
    assert sums["loss"][1] == 5
    alone = task.evaluate(Sorted(), toy(BOTH, [0] * 6).test, torch.Generator())
    assert (alone["loss"], alone["image-to-text"]) == ((0.0, 0.0), (0, 0.0)), "undefined without a pair"
    assert task.evaluate(Sorted(), task.dataset.test.take(torch.arange(0)), torch.Generator()) == {}
    assert sums["probe-accuracy"][1] == 8 * 6


@torch.no_grad()
def test_neighbours_are_counted_among_so_many_pairs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    task = PairContrast(toy(BOTH, BOTH))
    few = task.evaluate(Sorted(), task.dataset.test, torch.Generator())
    assert {weight for name, (_, weight) in few.items() if name != "probe-accuracy"} == {0}
    monkeypatch.setattr(clip, "CANDIDATES", 5)
    five = task.evaluate(Sorted(), task.dataset.test, torch.Generator())
    assert (five["text-to-image"], five["image-to-text"]) == ((4, 5), (3, 5)), "the sixth pair would be right"
    assert five["loss"][1] == 5


@torch.no_grad()
def test_the_figure_is_of_texts_with_pictures() -> None:
    task = PairContrast(toy(BOTH, [1, 1, 1, 1, 0, 0]))
    figure = task.figures(task.build(), task.dataset.test, torch.Generator())["nearest-pictures"]
    assert sum(bool(axes.images) for axes in figure.axes) == 4 * 4
    assert task.figures(task.build(), toy(BOTH, [0] * 6).test, torch.Generator()) == {}


def test_turned_labels_would_change_nothing() -> None:
    data = toy(BOTH, BOTH)
    config = TaskConfig(task="clip", num_clients=4, attack="label-flip")
    with pytest.raises(UserError, match="turns labels, and task clip does not learn from those of"):
        check_label_flip(config, PairContrast(data), PairContrast(data).build())
    check_label_flip(config, MultimodalClassification(data), MultimodalClassification(data).build())


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.rounding
def test_one_hash_for_one_node_and_three(tiny: Make, tmp_path: Path) -> None:
    result = finish_alike(
        tiny, tmp_path, **SMALL | {"task": "clip", "num_server_rounds": 1, "validation_fraction": 0.0}
    )
    assert result["final"]["loss"] < result["untrained"]["loss"]
    assert 0 < result["rows"][-1]["train"]["trains-pairs"] <= 1


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_pairs_teach_classes_without_a_label(tmp_path: Path) -> None:
    """Seed 42; twelve clients whose notes are in different languages, beside one that holds all."""
    together, alone = (
        finish(
            load_scenario(CONFIGS / f"{name}.toml", [f"run-dir={tmp_path / name}", "validation-fraction=0"])
        )
        for name in ("clip", "clip-centralized")
    )
    assert together["final"]["probe-accuracy"] >= together["untrained"]["probe-accuracy"] + 0.1
    assert alone["final"]["probe-accuracy"] >= together["untrained"]["probe-accuracy"] + 0.3
