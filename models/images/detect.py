"""Object detection: boxes around what an image shows, each with a class and a score."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.core.config import require
from models.core.errors import UserError
from models.data.boxes import KIND, LARGEST_SIDE
from models.data.dataset import Dataset, Examples
from models.images.detection_scores import (
    AP,
    AP_50,
    F1,
    FALSE,
    RECALL,
    Found,
    detection_ratios,
    detection_sums,
    truths,
)
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# torchvision is imported where a network is built: it takes over a second.

NORMS = ("group", "batch")
EVALUATION_BATCH = 20
LEAST_SIDE = 32
SHOWN = 12
"""Held-out images in the figure."""
SEED = "seed"
"""Column of a batch that a detector's draws follow from."""


class ObjectDetection(Task):
    """Find what an image shows.

    Options: `network`, a detector of torchvision such as "fasterrcnn_mobilenet_v3_large_fpn"; "" is a small
    FCOS; `norm`, "group" puts GroupNorm in the place of every BatchNorm, "batch" leaves it; `width`, channels
    of the small detector's first convolution; `flip`, whether training images are mirrored half of the time.

    Metrics: `map-50` and `map` are COCO's mean average precision, at an overlap of 0.5 and on average over
    0.5 to 0.95; `recall-50`, the part of the objects that boxes with a score of 0.5 or more are right about;
    `false-per-image`, such boxes that are wrong; `f1-50` of both.
    """

    kind = KIND
    batches_anywhere = True
    metric = AP_50
    metrics = (AP, RECALL, FALSE, F1)
    unstackable = "learns from another number of boxes in each image"

    def __init__(
        self,
        dataset: Dataset,
        network: str = "",
        norm: str = "group",
        width: int = 16,
        flip: bool = False,
    ) -> None:
        super().__init__(dataset)
        if not dataset.classes:
            raise UserError(f"task detect needs classes, and dataset {dataset.name!r} has none")
        require(norm in NORMS, "norm", " or ".join(map(repr, NORMS)), norm)
        require(8 <= width <= 256 and width % 4 == 0, "width", "8 to 256, divisible by 4", width)
        _, self.channels, *sides = dataset.train.shape("image")
        require(self.channels in (1, 3), "channels of images", "1 or 3", self.channels)
        least, most = min(sides), max(sides)
        fits = least >= LEAST_SIDE and most <= LARGEST_SIDE
        require(fits, "sides of images", f"{LEAST_SIDE} to {LARGEST_SIDE} pixels for detect", sides)
        self.network, self.norm, self.width, self.flip = network, norm, width, flip
        if network:
            from models.images.detectors import check_name

            check_name(network)
        self.max_value = float(dataset.info["max_value"])

    def build(self) -> nn.Module:
        """Return the detector."""
        from models.images.detectors import named_detector, small_detector

        num_classes = len(self.dataset.classes)
        if self.network:
            return named_detector(self.network, num_classes, self.norm)
        return small_detector(self.channels, num_classes, self.width, self.norm)

    @property
    def objectives(self) -> Sequence[Objective]:
        """The sum of the detector's losses, by Adam, or of a named one by SGD with momentum."""
        choice = OptimizerChoice("adam", 2e-3)
        if self.network:
            choice = OptimizerChoice("sgd", 0.005, {"momentum": 0.9})
        return [Objective("loss", _loss, optimizer=choice, max_grad_norm=10.0)]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return the pixels, boxes and classes, some images mirrored, and for a network by name its seed."""
        batch = {
            "image": self._pixels(examples["image"]),
            "box": examples["box"].float(),
            "class": examples["class"],
        }
        if self.flip:
            mirrored = torch.rand(len(examples), generator=generator) < 0.5
            batch |= _flipped(batch["image"], batch["box"], mirrored.to(examples.device))
        if self.network:  # which may draw, as Faster R-CNN does
            batch[SEED] = torch.randint(2**63 - 1, (len(examples),), generator=generator)
        return batch

    def notes(self) -> Sequence[tuple[int, str]]:
        """Say how many boxes the loader has left out."""
        if skipped := self.dataset.info.get("skipped", 0):
            return [
                (logging.WARNING, f"{skipped:,} boxes are left out, as nothing of them is in their image")
            ]
        return ()

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of what was found right and wrong, and the average precisions of all classes."""
        if not len(data):
            return {}
        return detection_sums(self._found(model, data), truths(data), len(self.dataset.classes))

    def ratios(self, metrics: Metrics) -> dict[str, float]:
        """Return what merged sums stand for; the average precisions are left out where several are merged."""
        return detection_ratios(metrics)

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw a few held-out images with the boxes that are there and those that were found."""
        # Only the server draws; workers are spared what this import takes.
        from models.images.detection_figure import detections_figure

        chosen = data.take(torch.randperm(len(data), generator=generator)[:SHOWN])
        pixels = self._pixels(chosen["image"])
        figure = detections_figure(pixels, truths(chosen), self._found(model, chosen), self.dataset.classes)
        return {"detections": figure}

    def _found(self, model: nn.Module, data: Examples) -> list[Found]:
        """Return what is found in each image, on the CPU."""
        device = next(model.parameters()).device
        found = []
        for image in data["image"].split(EVALUATION_BATCH):
            for each in model(self._pixels(image).to(device)):
                seen = {name: column.float().cpu() for name, column in each.items()}
                order = seen["scores"].argsort(descending=True, stable=True)
                labels = seen["labels"][order].long() - 1  # 0 is the background
                kept = order[labels >= 0]
                found.append(Found(seen["boxes"][kept], labels[labels >= 0], seen["scores"][kept]))
        return found

    def _pixels(self, image: Tensor) -> Tensor:
        return image.float() / self.max_value


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the sum of a detector's losses, as torchvision computes them."""
    boxes, classes = batch["box"], batch["class"]
    targets = [
        {"boxes": box[of_box >= 0], "labels": of_box[of_box >= 0] + 1}  # 0 is the background
        for box, of_box in zip(boxes, classes, strict=True)
    ]
    losses: dict[str, Tensor] = model(batch["image"], targets, batch[SEED][0] if SEED in batch else None)
    return torch.stack([*losses.values()]).sum()


def _flipped(image: Tensor, box: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
    """Return images (B, C, H, W) and boxes (B, M, 4), of which some are mirrored (B,)."""
    width = image.shape[-1]
    left, top, right, bottom = box.unbind(-1)
    turned = torch.stack([width - right, top, width - left, bottom], -1)
    return {
        "image": torch.where(mirrored[:, None, None, None], image.flip(-1), image),
        "box": torch.where(mirrored[:, None, None], turned, box),
    }
