"""Contrastive learning: NT-Xent by hand, what views are, and what the encoder learns from them."""

import math
from pathlib import Path

import pytest
import torch
from finished import Make, finish, finish_alike
from places import CONFIGS
from test_masked_pixels import toy
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.datasets import load_dataset
from models.images.augmentations import BRIGHTNESS, random_views
from models.images.contrastive import ContrastiveLearning, nearest, nt_xent
from models.images.networks import ConvNet
from models.registry import load_task
from models.state import build_model
from simulations.scenario import load_scenario


@pytest.mark.rounding
def test_nt_xent_by_hand() -> None:
    """Two images: the views of one are equal, those of the other at right angles; lengths do not count."""
    first = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    second = torch.tensor([[1.0, 0.0], [-5.0, 0.0]])
    # Cosines of the views a, b, A, B: aA = 1, ab = Ab = 0, aB = AB = -1, bB = 0; temperature 1/2 doubles.
    e = math.exp
    views = [
        -math.log(e(2) / (e(2) + e(0) + e(-2))),  # a among A, b, B
        -math.log(e(0) / (e(0) + e(0) + e(0))),  # b among B, a, A
        -math.log(e(2) / (e(2) + e(0) + e(-2))),  # A
        -math.log(e(0) / (e(0) + e(-2) + e(-2))),  # B among b, a, A
    ]
    assert float(nt_xent(first, second, 0.5)) == pytest.approx(sum(views) / 4, rel=1e-6)


def test_nt_xent_is_not_computed_in_bfloat16() -> None:
    """At temperature 0.05 its 8 bits moved the loss by several per cent."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(32, 16, generator=generator) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(first, second, 0.05)
    assert loss.dtype == torch.float32
    assert float(loss) == float(nt_xent(first, second, 0.05))


def test_of_one_image_there_is_nothing_to_tell() -> None:
    assert float(nt_xent(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]]), 0.2)) == 0


@pytest.mark.rounding
def test_the_order_of_images_and_views_does_not_matter() -> None:
    first, second = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([3, 0, 4, 1, 2])
    loss = float(nt_xent(first, second, 0.2))
    assert float(nt_xent(first[order], second[order], 0.2)) == pytest.approx(loss, rel=1e-6)
    assert float(nt_xent(second, first, 0.2)) == pytest.approx(loss, rel=1e-6)
    assert float(nt_xent(first, second[order], 0.2)) != pytest.approx(loss, rel=1e-3)


def test_the_nearest_are_others_by_angle() -> None:
    features = torch.tensor([[1.0, 0.0], [5.0, 1.0], [0.0, 2.0], [1.0, 1.0]])
    assert nearest(features).tolist() == [[1, 3, 2], [0, 3, 2], [3, 1, 0], [1, 0, 2]]


def test_views_stay_in_range_and_follow_from_the_generator_alone() -> None:
    image = torch.ones(40, 3, 16, 16)

    def views(seed: int) -> Tensor:
        torch.rand(3)  # somebody else draws from torch's own generator
        return random_views(image, torch.Generator().manual_seed(seed))

    assert torch.equal(views(1), views(1))
    assert not torch.equal(views(1), views(2))
    assert views(1).shape == image.shape
    assert views(1).min() >= 0
    assert views(1).max() <= 1
    centre = views(1)[:, :, 8, 8]  # into which no black can come: all that changes is the light
    assert centre.min() >= BRIGHTNESS[0]
    assert 0.2 < float((centre == 1).float().mean()) < 0.8  # as much lighter as darker
    assert not torch.equal(centre[:, 0], centre[:, 1])


def test_mirrored_views_are_asked_for() -> None:
    image = torch.zeros(200, 1, 16, 16)
    image[..., :5] = 1  # bright on the left
    left = [
        float((views[..., :8].sum((1, 2, 3)) > views[..., 8:].sum((1, 2, 3))).float().mean())
        for views in (random_views(image, torch.Generator().manual_seed(1), flip) for flip in (False, True))
    ]
    assert left[0] == 1
    assert 0.4 < left[1] < 0.6


def test_a_batch_carries_two_different_views() -> None:
    task = ContrastiveLearning(toy(5))
    batches = list(task.batches(nn.Module(), task.dataset.train, torch.Generator().manual_seed(1), 2))
    assert [batch["first"].shape for batch in batches] == [(2, 1, 8, 8), (2, 1, 8, 8), (1, 1, 8, 8)]
    assert not torch.equal(batches[0]["first"], batches[0]["second"])
    again = next(iter(task.batches(nn.Module(), task.dataset.train, torch.Generator().manual_seed(1), 2)))
    assert all(torch.equal(again[name], batches[0][name]) for name in ("first", "second"))


@pytest.mark.parametrize("norm", ["none", "group"])
def test_a_classifier_can_start_from_the_encoder(norm: str) -> None:
    encoder = build_model(ContrastiveLearning(toy(), norm), seed=1).state_dict()
    classifier = ConvNet(1, 8, 8, 2, norm).state_dict()
    shared = {name for name in classifier if name.startswith("features.")}
    assert shared == {name for name in encoder if name.startswith("features.")}
    assert all(encoder[name].shape == classifier[name].shape for name in shared)


class Scatter(nn.Module):
    """Gives every view a direction of its own, equal for both views of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.features = ConvNet(1, 8, 8, 2, "none").features

    def forward(self, image: Tensor) -> Tensor:
        return torch.eye(len(image))


@pytest.mark.rounding
@torch.no_grad()
def test_metrics_are_sums_over_chunks() -> None:
    task = ContrastiveLearning(toy(104), temperature=0.5)
    metrics = task.evaluate(Scatter(), task.dataset.test, torch.Generator().manual_seed(1))
    # 100 images, then 4: each view has one partner at cosine 1 and all others at 0.
    expected = sum(n * (math.log(math.exp(2) + 2 * n - 2) - 2) for n in (100, 4))
    assert metrics["loss"] == (pytest.approx(expected, rel=1e-5), 104)
    assert task.ratios(metrics)["probe-accuracy"] == 1  # dark from white is easily told


@torch.no_grad()
def test_figures_are_a_map_by_class_and_neighbours() -> None:
    task = ContrastiveLearning(load_dataset(TaskConfig(dataset="digits")))
    test = task.dataset.test.take(torch.arange(60))
    figures = task.figures(build_model(task, 1), test, torch.Generator())
    axes = figures["map"].axes[0]
    assert [len(dots.get_offsets()) for dots in axes.collections] == test["label"].bincount().tolist()
    picture = torch.as_tensor(figures["neighbours"].axes[0].images[0].get_array())[..., 0]
    assert picture.shape == (1 + 10 * 9, 1 + 9 * 9)
    assert torch.equal(picture[10:18, 1:9], test["image"][1, 0] / 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("temperature = 0", "temperature must be > 0, got 0"),
        ("flip = 'yes'", "flip must be true or false, got 'yes'"),
        ("norm = 'layer'", "norm must be one of none, group, batch, got 'layer'"),
    ],
)
def test_what_does_not_fit_is_refused(options: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_task(TaskConfig(task="contrastive", task_options=options), toy())
    assert str(error.value) == message


@pytest.mark.rounding
@pytest.mark.slow
def test_one_hash_for_one_node_and_three(tiny: Make, tmp_path: Path) -> None:
    result = finish_alike(tiny, tmp_path, task="contrastive", num_server_rounds=1, batch_size=128)
    assert result["final"]["loss"] < result["untrained"]["loss"]


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_features_tell_digits_apart_better_than_untrained_ones(tmp_path: Path) -> None:
    """Seed 42; four clients whose digits differ, beside one that holds all."""
    together, alone = (
        finish(load_scenario(CONFIGS / f"{name}.toml", [f"run-dir={tmp_path / name}"]))
        for name in ("contrastive", "contrastive-centralized")
    )
    assert together["final"]["probe-accuracy"] >= together["untrained"]["probe-accuracy"] + 0.05
    assert together["final"]["probe-accuracy"] >= 0.95 * alone["final"]["probe-accuracy"]
