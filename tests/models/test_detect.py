"""Detection: batches, losses and precisions in exact numbers, what merges; and that it learns."""

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished import Make, finish, finish_alike, result_of, run_killed
from matplotlib.patches import Rectangle
from places import CONFIGS
from raw_files import write_coco, write_kitti
from torch import Tensor, nn
from torchvision.models import detection, list_models

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.boxes import IGNORED, Half, boxed_dataset, padded
from models.data.dataset import Dataset, Examples
from models.images.detect import SEED, ObjectDetection
from models.images.detection_scores import (
    Found,
    Truth,
    average_precisions,
    detection_ratios,
    detection_sums,
)
from models.registry import load_task, why_not_stackable
from models.task import Batch, merge_metrics
from simulations.runtime.in_process import run_in_process
from simulations.scenario import load_scenario

SIDE = 32
BOXES = [[(4.0, 8.0, 20.0, 24.0), (2.0, 2.0, 10.0, 6.0)], [(8.0, 8.0, 24.0, 30.0)], []]
LABELS = [[1, IGNORED], [0], []]


def toy(channels: int = 1) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (3, channels, SIDE, SIDE), np.uint8)
    half = Half(pixels, *padded(BOXES, LABELS))
    return boxed_dataset("toy", [half, half], ["cat", "dog"])


def task(**options: Any) -> ObjectDetection:
    return ObjectDetection(toy(), **options)


def batch_of(made: ObjectDetection, seed: int = 0) -> Batch:
    return made.batch(made.dataset.train, torch.Generator().manual_seed(seed))


def loss_of(made: ObjectDetection, model: nn.Module, batch: Batch) -> Tensor:
    (objective,) = made.objectives
    return objective.loss(model, batch)


def test_the_loss_is_the_sum_of_the_librarys() -> None:
    made = task()
    model = made.build().train()
    batch = batch_of(made)
    losses = model.network.train()(
        list(batch["image"]),
        [
            {"boxes": torch.tensor([BOXES[0][0]]), "labels": torch.tensor([2])},  # 0 is the background
            {"boxes": torch.tensor([BOXES[1][0]]), "labels": torch.tensor([1])},
            {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        ],
    )
    assert losses.keys() == {"classification", "bbox_regression", "bbox_ctrness"}
    assert torch.equal(loss_of(made, model, batch), torch.stack([*losses.values()]).sum())
    assert torch.equal(loss_of(made, model.eval(), batch), loss_of(made, model.train(), batch))


@pytest.mark.parametrize("network", ["", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_what_a_detector_draws_comes_with_the_batch(network: str) -> None:
    made = task(network=network)
    model = made.build()
    batch = batch_of(made)
    if network:  # fewer than the places that there are
        model.network.rpn.fg_bg_sampler.batch_size_per_image = 4
    assert (SEED in batch) == bool(network)
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = torch.get_rng_state()
    with torch.no_grad():
        first = loss_of(made, model, batch)
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(7)
        assert torch.equal(loss_of(made, model, batch), first)
        if network:
            other = loss_of(made, model, {**batch, SEED: batch[SEED] + 1})
            assert not torch.equal(other, first)


DETECTORS = [name for name in list_models(module=detection) if not name.startswith(("mask", "keypoint"))]


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.parametrize("network", DETECTORS)
def test_any_detector_of_torchvision_takes_a_step_and_finds_boxes(network: str) -> None:
    made = task(network=network, norm="batch" if network == "ssd300_vgg16" else "group")
    model = made.build().train()
    loss = loss_of(made, model, batch_of(made))
    loss.backward()
    assert math.isfinite(loss.detach())
    assert all(weight.grad is not None for weight in model.parameters())
    with torch.no_grad():
        sums = made.evaluate(model.eval(), made.dataset.test, torch.Generator())
    assert sums["recall-50"][1] == 2


def test_boxes_are_mirrored_with_their_images() -> None:
    made = task(flip=True)
    plain, batch = batch_of(task()), batch_of(made)
    mirrored = torch.rand(3, generator=torch.Generator().manual_seed(0)) < 0.5
    assert mirrored.tolist() == [True, False, True]
    assert torch.equal(batch["image"][0], plain["image"][0].flip(-1))
    assert batch["box"][0].tolist() == [[12, 8, 28, 24], [22, 2, 30, 6]]
    assert torch.equal(batch["image"][1], plain["image"][1])
    assert torch.equal(batch["box"][1], plain["box"][1])
    assert batch["image"].max() <= 1


BOX = torch.tensor([[0.0, 0.0, 10.0, 10.0]])


def found(*each: tuple[float, int, float]) -> Found:
    """Return boxes of 10 pixels by how far to the right, their class and their score."""
    boxes = (
        torch.stack([BOX[0] + torch.tensor([right, 0, right, 0]) for right, _, _ in each])
        if each
        else BOX[:0]
    )
    return Found(
        boxes,
        torch.tensor([label for _, label, _ in each]).long(),
        torch.tensor([score for *_, score in each]),
    )


ONE = Truth(BOX, torch.tensor([0]))
TWO = Truth(BOX.repeat(2, 1) + torch.tensor([[0.0], [100.0]]), torch.tensor([0, 0]))


def test_average_precisions_in_exact_numbers() -> None:
    # COCO reads the precision at recalls of 0, 0.01 to 1, and as the best at that recall or a larger one.
    half = average_precisions([found((0, 0, 0.9)), found((50, 0, 0.8))], [ONE, ONE], 2)
    assert half.shape == (10, 2)
    assert half[:, 0] == pytest.approx(51 / 101)
    assert np.isnan(half[:, 1]).all()  # nothing of this class is there
    late = average_precisions([found((0, 0, 0.9)), found((50, 0, 0.8), (0, 0, 0.7))], [ONE, ONE], 1)
    assert late[:, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)
    # Boxes that are 2 of 10 pixels apart overlap by 8 / 12: enough up to 0.65.
    near = average_precisions([found((2, 0, 0.9))], [ONE], 1)
    assert near[:, 0].round(12).tolist() == [1.0] * 4 + [0.0] * 6


def test_counts_and_their_ratios() -> None:
    aside = Truth(torch.cat([BOX, BOX * 3 + 200]), torch.tensor([0, IGNORED]))
    sums = detection_sums(
        [
            found((0, 0, 0.9), (1, 0, 0.8), (0, 1, 0.7), (0, 0, 0.4)),  # right, second, another class, unsure
            found((0, 0, 0.6)),
            found(),
        ],
        [ONE, TWO, aside],
        2,
    )
    assert sums["recall-50"] == (2, 4)
    assert sums["false-per-image"] == (2, 3)
    ratios = detection_ratios(sums)
    assert ratios["f1-50"] == 2 * 2 / (2 + 2 + 4)
    assert set(ratios) == {"map-50", "map", "recall-50", "false-per-image", "f1-50"}
    inside = Found(BOX + 210, torch.tensor([0]), torch.tensor([0.9]))
    assert detection_sums([inside], [aside], 1)["false-per-image"] == (0, 1)
    assert detection_sums([inside], [ONE], 1)["false-per-image"] == (1, 1)
    assert detection_ratios(detection_sums([inside], [aside], 1))["map-50"] == 0
    both = detection_sums([Found(*map(torch.cat, zip(inside, found((0, 0, 0.8)), strict=True)))], [aside], 1)
    assert detection_ratios(both)["map-50"] == pytest.approx(1)  # the surest lies in the ignored region


def test_counts_merge_and_average_precisions_do_not() -> None:
    parts = [([found((0, 0, 0.9), (30, 0, 0.8))], [ONE]), ([found((50, 0, 0.7))], [TWO])]
    sums = [detection_sums(*part, 1) for part in parts]
    whole = detection_ratios(
        detection_sums(*([*first, *second] for first, second in zip(*parts, strict=True)), 1)
    )
    merged = detection_ratios(merge_metrics(sums))
    assert merged == {name: whole[name] for name in ("recall-50", "false-per-image", "f1-50")}
    assert "map-50" in detection_ratios(merge_metrics(sums[:1]))
    assert detection_ratios({}) == {}


class Knows(nn.Module):
    """Finds what is there, and then the background."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor) -> list[dict[str, Tensor]]:
        boxes = [
            torch.tensor([of_image[0], (0.0, 0, 5, 5)]) if of_image else torch.zeros(0, 4)
            for of_image in BOXES
        ]
        labels = [torch.tensor([2, 0]), torch.tensor([1, 0]), torch.zeros(0).long()]
        return [
            {"boxes": box, "labels": label, "scores": torch.linspace(0.8, 0.9, len(box))}
            for box, label in zip(boxes, labels, strict=True)
        ]


@torch.no_grad()
def test_what_is_evaluated_and_drawn() -> None:
    made = task()
    ratios = made.ratios(made.evaluate(Knows(), made.dataset.test, torch.Generator()))
    assert ratios == {"map-50": 1, "map": 1, "recall-50": 1, "false-per-image": 0, "f1-50": 1}
    assert made.evaluate(Knows(), made.dataset.test.take([]), torch.Generator()) == {}

    class Order(torch.Generator):
        pass

    data = Examples({name: column[:2] for name, column in made.dataset.test.columns.items()})
    made._found = lambda model, chosen: [found((3, 1, 0.9), (3, 1, 0.1))] * len(chosen)  # type: ignore[assignment]
    figure = made.figures(Knows(), data, Order())["detections"]
    drawn = [len([patch for patch in axes.patches if isinstance(patch, Rectangle)]) for axes in figure.axes]
    assert sorted(drawn) == [2, 3]  # what is there, two and one, and each with one of the two that were found
    assert {text.get_text() for axes in figure.axes for text in axes.texts} == {"", "cat", "dog", "dog 0.90"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "network = 'fcos_resnet5_fpn'",
            "unknown network 'fcos_resnet5_fpn': did you mean fcos_resnet50_fpn",
        ),
        ("network = 'resnet18'", "unknown network 'resnet18'"),
        (
            "network = 'maskrcnn_resnet50_fpn'",
            "also learns from masks, which data of boxes has not: take another one, such as fasterrcnn_",
        ),
        ("norm = 'none'", "norm must be 'group' or 'batch', got 'none'"),
        ("width = 10", "width must be 8 to 256, divisible by 4, got 10"),
    ],
)
def test_options_that_are_refused(options: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        load_task(TaskConfig(task="detect", task_options=options), toy())


def test_clients_do_not_train_side_by_side() -> None:
    assert why_not_stackable(task()) == "clips each client's gradients"
    with pytest.raises(UserError, match='engine = "stacked" does not fit task detect'):
        load_task(TaskConfig(task="detect", engine="stacked"), toy())


def test_boxes_that_were_left_out_are_told_of() -> None:
    assert task().notes() == ()
    half = Half(np.zeros((3, 1, SIDE, SIDE), np.uint8), *padded(BOXES, LABELS), skipped=3)
    ((_, line),) = ObjectDetection(boxed_dataset("toy", [half, half], ["a", "b"])).notes()
    assert line == "6 boxes are left out, as nothing of them is in their image"


SCENES = {
    "task": "detect",
    "task_options": "width = 8",
    "dataset": "digit-scenes",
    "dataset_options": "size = 32, images_per_client = 4, test_images = 4, clutters = ['noise', 'lines']",
    "partitioner": "natural",
    "batch_size": 4,
    "keep_optimizer": True,
    "local_test_fraction": 0.25,
    "fraction_evaluate": 1.0,
}


@pytest.mark.rounding
def test_its_hash_does_not_depend_on_who_shares_a_node(tiny: Make, tmp_path: Path) -> None:
    result = finish_alike(tiny, tmp_path, **SCENES)
    assert result["final"].keys() == {"map-50", "map", "recall-50", "false-per-image", "f1-50"}
    last = result["rows"][-1]
    assert last["evaluate"].keys() == {"recall-50", "false-per-image", "f1-50"}
    assert len(last["by_client"]["map-50"]) == 4  # each of its own examples
    assert all(math.isfinite(value) for value in last["evaluate"].values())


class KilledDetection(ObjectDetection):
    """Ends its process, as a power cut would, at the sixth batch, unless a file is there."""

    def __init__(self, dataset: Dataset, unless: str, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.unless, self.count = Path(unless), 0

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        self.count += 1
        if self.count == 6 and not self.unless.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(examples, generator)


@pytest.mark.slow
def test_sigkill_and_resume_end_in_the_hash_of_the_whole_run(tiny: Make, tmp_path: Path) -> None:
    survivor = tmp_path / "now-it-survives"
    options = f"width = 8, unless = '{survivor}'"
    config = tiny(
        **SCENES | {"task": "test_detect:KilledDetection", "task_options": options}, checkpoint_every=1
    )
    run_killed(config)
    assert result_of(tmp_path / "run")["status"] == "unfinished"
    survivor.touch()
    run_in_process({**config, "resume": True}, num_nodes=1)
    run_in_process({**config, "run-dir": str(tmp_path / "whole")}, num_nodes=2)
    resumed, whole = result_of(tmp_path / "run"), result_of(tmp_path / "whole")
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["final"] == whole["final"]


@pytest.mark.parametrize("name", ["kitti", "coco"])
def test_an_epoch_on_files_of_ones_own(tiny: Make, tmp_path: Path, name: str) -> None:
    {"kitti": write_kitti, "coco": write_coco}[name](tmp_path / "files")
    result = finish(
        tiny(
            task="detect",
            task_options="width = 8, flip = true",
            dataset=f"{name}:{tmp_path / 'files'}",
            dataset_options="width = 64, height = 32",
            num_clients=1,
            num_server_rounds=1,
            partitioner="iid",
        )
    )
    assert math.isfinite(result["rows"][-1]["train"]["loss"])
    assert "f1-50" in result["final"]


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_digits_are_found(tmp_path: Path) -> None:
    """Seed 42; docs/built-in-tasks.md has the numbers."""

    def reached(scenario: str, rounds: int) -> float:
        changes = [f"run-dir={tmp_path / f'{scenario}-{rounds}'}", f"num-server-rounds={rounds}"]
        result = finish(load_scenario(CONFIGS / f"{scenario}.toml", changes))
        return float(result["tested"]["final"]["map-50"])

    centralized = reached("detect-centralized", 70)
    federated = reached("detect", 70)
    assert min(federated, centralized) >= 0.6
    # Six models are averaged once a round: the federation is late, and arrives.
    assert federated >= 0.95 * centralized
