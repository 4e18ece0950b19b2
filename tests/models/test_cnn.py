"""The image classifier: its shapes, its batches, and its metrics in exact numbers."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.images.cnn import EVALUATION_BATCH, ImageClassification
from models.images.networks import ConvNet
from models.registry import load_task
from models.state import build_model, describe_state, weights_sha256


def dataset(num_rows: int = 10, shape: tuple[int, ...] = (1, 8, 8), **changes: Any) -> Dataset:
    """Return rows whose every pixel is their number, with labels 0, 1, 2, 0, 1, 2 ..."""
    numbers = torch.arange(num_rows, dtype=torch.uint8)
    rows = Examples(
        {
            "image": numbers.reshape(-1, 1, 1, 1).expand(-1, *shape).clone(),
            "label": numbers.to(torch.int64) % 3,
        }
    )
    options: dict[str, Any] = {"label": "label", "classes": ("a", "b", "c"), "info": {"max_value": 4}}
    return Dataset("toy", "images", rows, rows, **(options | changes))


@pytest.mark.parametrize(
    ("shape", "num_parameters"),
    [
        # 3x3 convolutions c -> 32 -> 64, then 64 (h/4) (w/4) -> 128 -> 10, each with its biases.
        ((1, 8, 8), 320 + 18_496 + (256 * 128 + 128) + 1290),
        ((1, 28, 28), 421_642),
        ((3, 32, 32), 896 + 18_496 + (4096 * 128 + 128) + 1290),
        ((1, 30, 9), 320 + 18_496 + (64 * 7 * 2 * 128 + 128) + 1290),
    ],
)
@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_the_network_fits_its_images(shape: tuple[int, int, int], num_parameters: int, norm: str) -> None:
    model = ConvNet(*shape, 10, norm)
    assert model(torch.zeros(3, *shape)).shape == (3, 10)
    extra = 2 * (32 + 64) if norm != "none" else 0
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters + extra


def test_group_norm_remembers_nothing() -> None:
    assert list(ConvNet(1, 8, 8, 3, "group").buffers()) == []


def test_a_batch_has_the_rows_and_pixels_between_0_and_1() -> None:
    task = ImageClassification(dataset(5))
    batches = list(task.batches(nn.Module(), task.dataset.train, torch.Generator(), batch_size=2))
    assert [len(batch["label"]) for batch in batches] == [2, 2, 1]
    pixels = torch.cat([batch["image"][:, 0, 0, 0] for batch in batches])
    labels = torch.cat([batch["label"] for batch in batches])
    assert sorted(pixels.tolist()) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert torch.equal(labels, (pixels * 4).to(torch.int64) % 3)  # a row keeps its label
    assert batches[0]["image"].dtype == torch.float32


def test_the_order_is_the_generators_alone() -> None:
    task = ImageClassification(dataset(50))

    def order(seed: int) -> list[float]:
        torch.rand(3)  # somebody else draws from torch's own generator
        generator = torch.Generator().manual_seed(seed)
        (batch,) = task.batches(nn.Module(), task.dataset.train, generator, batch_size=50)
        return batch["image"][:, 0, 0, 0].tolist()

    assert order(1) == order(1) != order(2)


class Fixed(nn.Module):
    """Gives every image the logits (0, pixel, 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pixel = image[:, 0, 0, 0] * self.scale
        return torch.stack([torch.zeros_like(pixel), pixel, torch.zeros_like(pixel)], dim=1)


@pytest.mark.rounding
@pytest.mark.parametrize("num_rows", [5, EVALUATION_BATCH + 5])
@torch.no_grad()
def test_metrics_are_sums(num_rows: int) -> None:
    """With more rows than one chunk holds nothing changes but the numbers."""
    task = ImageClassification(dataset(num_rows))
    metrics = task.evaluate(Fixed(), task.dataset.test, torch.Generator())
    pixels = [row / 4 for row in range(num_rows)]
    right = [(row % 3 == 1) if row else True for row in range(num_rows)]  # of equal logits, the first
    losses = [
        math.log(2 + math.exp(pixel)) - (pixel if row % 3 == 1 else 0) for row, pixel in enumerate(pixels)
    ]
    assert metrics["accuracy"] == (sum(right), num_rows)
    assert metrics["loss"][0] == pytest.approx(sum(losses), rel=1e-6)
    assert metrics["loss"][1] == num_rows
    assert task.ratios(metrics) == {
        "accuracy": sum(right) / num_rows,
        "loss": pytest.approx(sum(losses) / num_rows, rel=1e-6),
    }


@torch.no_grad()
def test_the_confusion_matrix_counts_true_rows_and_predicted_columns() -> None:
    task = ImageClassification(dataset(10))
    (figure,) = task.figures(Fixed(), task.dataset.test, torch.Generator()).values()
    axes = figure.axes[0]
    # Row 0 is predicted "a" (all logits are equal), all others "b".
    cells = [text.get_text() for text in axes.texts]
    assert cells == ["1", "3", "0", "0", "3", "0", "0", "3", "0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]


def test_one_objective_trains_everything() -> None:
    task = ImageClassification(dataset())
    (objective,) = task.objectives
    model = task.build()
    batch = {"image": torch.zeros(2, 1, 8, 8), "label": torch.tensor([0, 2])}
    objective.loss(model, batch).backward()
    assert objective.parameters == ("*",)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_initial_weights_follow_from_the_seed_alone() -> None:
    task = ImageClassification(dataset())
    before = torch.random.get_rng_state()
    hashes = []
    for seed in (1, 1, 2):
        torch.rand(5)
        drawn = torch.random.get_rng_state()
        hashes.append(weights_sha256(build_model(task, seed).state_dict()))
        assert torch.equal(torch.random.get_rng_state(), drawn)  # and nobody else's numbers change
    assert hashes[0] == hashes[1] != hashes[2]
    torch.random.set_rng_state(before)


def test_the_hash_names_weights_by_all_that_they_are() -> None:
    base = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3)}
    others = [
        {"a": torch.tensor([1.0, 2.0]), "c": torch.tensor(3)},
        {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor(3)},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3, dtype=torch.int32)},
        {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor(3)},
        {"a": torch.tensor([1.0, 2.0])},
    ]
    assert len({weights_sha256(state) for state in [base, *others]}) == 6
    assert weights_sha256(dict(reversed(base.items()))) == weights_sha256(base)
    assert weights_sha256({"a": torch.tensor([[1.0, 9.0], [2.0, 9.0]])[:, 0], "b": base["b"]}) == (
        weights_sha256(base)
    )


def test_a_state_is_described_line_by_line() -> None:
    model = ConvNet(1, 8, 8, 3, "none")
    assert describe_state(model.state_dict())[0] == "features.0.weight torch.float32 (32, 1, 3, 3)"


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ({}, {"classes": ()}, "task cnn needs labels, and dataset 'toy' has none"),
        ({"task_options": "norm = 'layer'"}, {}, "norm must be one of none, group, batch, got 'layer'"),
        ({"task_options": "nrom = 'group'"}, {}, "unknown option of task cnn 'nrom': did you mean norm?"),
        (
            {"task_options": "dataset = 1"},
            {},
            "unknown option of task cnn 'dataset': known are network, norm",
        ),
        ({}, {"kind": "sentences"}, "task cnn learns from images, and dataset toy holds sentences"),
        ({"task": "cn"}, {}, "unknown task 'cn': did you mean cnn?"),
        ({"task": "nowhere:Task"}, {}, "task 'nowhere:Task' cannot be imported: No module named 'nowhere'"),
        (
            {"task": "models.images.cnn:CNN"},
            {},
            "task 'models.images.cnn:CNN' cannot be imported: module 'models.images.cnn' has",
        ),
        ({"task": ":Task"}, {}, "task ':Task' cannot be imported: "),
        ({"task": "json:JSONDecoder"}, {}, "task 'json:JSONDecoder' must be a subclass of models.Task"),
    ],
)
def test_a_task_that_cannot_be_made(config: dict[str, str], changes: dict[str, Any], message: str) -> None:
    kind = changes.pop("kind", "images")
    toy = dataset(**changes)
    toy = Dataset(toy.name, kind, toy.train, toy.test, toy.label, toy.classes, info=toy.info)
    with pytest.raises(UserError) as error:
        load_task(TaskConfig(**config), toy)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 3, 32), (1, 8, 2)])
def test_images_that_are_too_small_are_refused(shape: tuple[int, int, int]) -> None:
    message = f"sides of images must be 4 pixels or more for cnn, got '{shape[1]}x{shape[2]}'"
    with pytest.raises(UserError) as error:
        ImageClassification(dataset(shape=shape))
    assert str(error.value) == message
    assert build_model(ImageClassification(dataset(shape=(1, 4, 4))), 1)(torch.zeros(1, 1, 4, 4)).shape == (
        1,
        3,
    )
