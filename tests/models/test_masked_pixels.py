"""Masked pixels: what is hidden, what the loss counts, and what the encoder learns from it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from finished import Make, finish, finish_alike
from places import CONFIGS
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset
from models.images.masked_pixels import MaskedPixels
from models.images.networks import ConvNet
from models.registry import load_task
from models.state import build_model
from simulations.scenario import load_scenario


def toy(num_rows: int = 6, shape: tuple[int, int, int] = (1, 8, 8), **changes: Any) -> Dataset:
    """Return images of one grey each, dark ones of class a and white ones of class b."""
    label = torch.arange(num_rows) % 2
    image = (1 + 3 * label).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *shape).clone()
    rows = Examples({"image": image, "label": label})
    options: dict[str, Any] = {"label": "label", "classes": ("a", "b"), "info": {"max_value": 4}}
    return Dataset("toy", "images", rows, rows, **(options | changes))


@pytest.mark.parametrize("norm", ["none", "group"])
def test_a_classifier_can_start_from_the_encoder(norm: str) -> None:
    encoder = build_model(MaskedPixels(toy(), norm), seed=1).state_dict()
    classifier = ConvNet(1, 8, 8, 2, norm).state_dict()
    shared = {name for name in classifier if name.startswith("features.")}
    assert shared
    assert shared == {name for name in encoder if name.startswith("features.")}
    assert all(encoder[name].shape == classifier[name].shape for name in shared)


@pytest.mark.parametrize(
    ("patch", "mask_ratio", "hidden"), [(4, 0.5, 2), (2, 0.5, 8), (2, 0.6, 10), (2, 0.75, 12)]
)
def test_each_image_loses_equally_many_whole_patches(patch: int, mask_ratio: float, hidden: int) -> None:
    task = MaskedPixels(toy(), patch=patch, mask_ratio=mask_ratio)
    mask = task.hide(50, torch.Generator().manual_seed(1))
    assert mask.shape == (50, 1, 8, 8)
    assert mask.flatten(1).sum(1).unique().tolist() == [hidden * patch**2]
    patches = mask.float().unfold(2, patch, patch).unfold(3, patch, patch).flatten(4).mean(4)
    assert patches.unique().tolist() == [0, 1]
    assert len(mask.unique(dim=0)) > 5  # not the same ones of every image
    chance = patches.mean(0).flatten()
    assert chance.sub(hidden * patch**2 / 64).abs().max() < 0.3  # nor of any place


def test_a_batch_carries_images_and_masks_from_the_generator_alone() -> None:
    task = MaskedPixels(toy(5), patch=2)

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        torch.rand(3)  # somebody else draws from torch's own generator
        batches = list(task.batches(nn.Module(), task.dataset.train, torch.Generator().manual_seed(seed), 2))
        assert [batch["image"].shape for batch in batches] == [(2, 1, 8, 8), (2, 1, 8, 8), (1, 1, 8, 8)]
        image, hidden = (torch.cat([batch[name] for batch in batches]) for name in ("image", "hidden"))
        return image, hidden

    assert draw(1)[0].unique().tolist() == [0.25, 1]
    assert all(map(torch.equal, draw(1), draw(1)))
    assert not torch.equal(draw(1)[1], draw(2)[1])


class Grey(nn.Module):
    """Draws every pixel in one grey."""

    def __init__(self, grey: float) -> None:
        super().__init__()
        self.grey = nn.Parameter(torch.tensor(grey))
        self.features = ConvNet(1, 8, 8, 2, "none").features

    def forward(self, image: Tensor, hidden: Tensor) -> Tensor:
        return self.grey.expand_as(image)


@pytest.mark.rounding
def test_the_loss_is_the_mean_over_hidden_pixels() -> None:
    (objective,) = MaskedPixels(toy()).objectives
    image = torch.zeros(1, 2, 8, 8)
    image[:, 1] = 1
    image[:, :, :, 0] = 7  # which may be seen
    hidden = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    hidden[:, :, :4, 4:] = True
    loss = objective.loss(Grey(0.25), {"image": image, "hidden": hidden})
    assert loss.item() == pytest.approx((0.25**2 + 0.75**2) / 2)


@torch.no_grad()
def test_the_network_sees_no_hidden_pixel_and_no_seen_pixel_is_asked_for() -> None:
    model = build_model(MaskedPixels(toy()), seed=1)
    hidden = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    hidden[:, :, :4, 4:] = True
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(image, hidden), model(image.masked_fill(hidden, 9.0), hidden))
    assert not torch.equal(model(image, hidden), model(image.masked_fill(~hidden, 9.0), hidden))
    (objective,) = MaskedPixels(toy()).objectives
    with torch.enable_grad():
        drawn = torch.zeros(1, 1, 8, 8, requires_grad=True)
        objective.loss(lambda image, hidden: drawn, {"image": image, "hidden": hidden}).backward()  # type: ignore[arg-type]
    assert drawn.grad is not None
    assert torch.equal(drawn.grad != 0, hidden)


@pytest.mark.rounding
@pytest.mark.parametrize("num_rows", [6, 204])
@torch.no_grad()
def test_metrics_are_sums(num_rows: int) -> None:
    """With more rows than one chunk holds nothing changes but the numbers."""
    task = MaskedPixels(toy(num_rows, (3, 8, 8)))
    model = build_model(task, seed=1)
    for part in model.decoder[3].parameters():  # type: ignore[index, union-attr]
        part.zero_()  # draws black
    metrics = task.evaluate(model, task.dataset.test, torch.Generator().manual_seed(2))
    total, weight = metrics["loss"]
    assert weight == num_rows * 32 * 3
    assert total == pytest.approx(weight * (0.25**2 + 1) / 2, rel=1e-6)
    assert task.ratios(metrics)["probe-accuracy"] == 1  # dark from white is easily told


@torch.no_grad()
def test_the_figure_shows_images_holes_and_fillings() -> None:
    task = MaskedPixels(load_dataset(TaskConfig(dataset="digits")), patch=2)
    (figure,) = task.figures(
        build_model(task, 1), task.dataset.test, torch.Generator().manual_seed(3)
    ).values()
    picture = torch.as_tensor(figure.axes[0].images[0].get_array())[..., 0]
    assert picture.shape == (1 + 3 * 9, 1 + 12 * 9)
    whole, holes, filled = (picture[start : start + 8, 10:18] for start in (1, 10, 19))
    assert torch.equal(whole, task.dataset.test["image"][1, 0] / 16)
    hidden = holes != whole
    assert holes[hidden].unique().tolist() == [0.5]
    assert 0 < hidden.sum() <= 32
    assert torch.equal(filled[~hidden & (whole != 0.5)], whole[~hidden & (whole != 0.5)])
    assert not torch.equal(filled[hidden], whole[hidden])


@pytest.mark.parametrize(
    ("options", "dataset", "message"),
    [
        ("patch = 3", toy(), "patch must be a divisor of the sides of images, 8x8, got 3"),
        ("mask_ratio = 1.0", toy(), "mask_ratio must be a part of 4 patches that hides one at least and"),
        ("mask_ratio = 0.1", toy(), "mask_ratio must be a part of 4 patches that hides one at least and"),
        ("norm = 'layer'", toy(), "norm must be one of none, group, batch, got 'layer'"),
        ("", toy(shape=(1, 10, 8)), "sides of images must be multiples of 4 for masked-pixels, got '10x8'"),
        ("", toy(classes=()), "the probe of this task needs labels, and dataset 'toy' has none"),
    ],
)
def test_what_does_not_fit_is_refused(options: str, dataset: Dataset, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_task(TaskConfig(task="masked-pixels", task_options=options), dataset)
    assert str(error.value).startswith(message)


@pytest.mark.rounding
def test_one_hash_for_one_node_and_three(tiny: Make, tmp_path: Path) -> None:
    result = finish_alike(tiny, tmp_path, task="masked-pixels", num_server_rounds=1, batch_size=128)
    assert result["final"]["loss"] < result["untrained"]["loss"]
    assert result["metric"] == "probe-accuracy"


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_features_tell_digits_apart_better_than_untrained_ones(tmp_path: Path) -> None:
    """Seed 42; four clients whose digits differ, beside one that holds all."""
    together, alone = (
        finish(load_scenario(CONFIGS / f"{name}.toml", [f"run-dir={tmp_path / name}"]))
        for name in ("masked-pixels", "masked-pixels-centralized")
    )
    assert together["final"]["probe-accuracy"] >= together["untrained"]["probe-accuracy"] + 0.05
    assert together["final"]["probe-accuracy"] >= 0.95 * alone["final"]["probe-accuracy"]
    assert together["final"]["loss"] < 0.5 * together["untrained"]["loss"]
