"""How well boxes were found: COCO's average precision, by faster-coco-eval, and counts that merge."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data.boxes import BEHIND, IGNORED
from models.data.dataset import Examples
from models.task import Metrics

# faster-coco-eval and torchvision are imported where they are used: workers of other families do without.

CERTAIN = 0.5
"""Score from which on a box counts as found."""
OVERLAP = 0.5
"""Part of two boxes' union, or of a box in an ignored region, from which on they are one."""
AP_50, AP = "map-50", "map"
RECALL, FALSE, F1 = "recall-50", "false-per-image", "f1-50"
EVALUATIONS = "evaluations"
"""How many evaluations were merged: an average precision is of one."""
_MOST_FOUND = 100
"""Boxes of an image and a class that COCO's precision counts."""


class Found(NamedTuple):
    """What a detector has found in an image, the surest first."""

    box: Tensor
    """(n, 4), left, top, right and bottom in pixels."""
    label: Tensor
    """(n,), place in the classes."""
    score: Tensor
    """(n,), from 0 to 1."""


class Truth(NamedTuple):
    """What there is in an image."""

    box: Tensor
    """(m, 4)"""
    label: Tensor
    """(m,), place in the classes, or IGNORED."""


def truths(data: Examples) -> list[Truth]:
    """Return what there is in each image."""
    there = data["class"] != BEHIND  # (N, M)
    rows = zip(data["box"].float(), data["class"], there, strict=True)
    return [Truth(boxes[seen], labels[seen]) for boxes, labels, seen in rows]


def detection_sums(found: Sequence[Found], truth: Sequence[Truth], num_classes: int) -> Metrics:
    """Return the sums of an evaluation of some images.

    The counts below the last three names merge exactly. An average precision does not: it goes through all
    boxes of all images by their scores. So the sums say of how many evaluations they are.
    """
    right = wrong = objects = 0
    for of_image, there in zip(found, truth, strict=True):
        hits, others = _compared(of_image, there)
        right, wrong = right + hits, wrong + others
        objects += int((there.label != IGNORED).sum())
    by_class = average_precisions(found, truth, num_classes)
    known = ~np.isnan(by_class[0])
    return {
        AP_50: (float(by_class[0, known].sum()), int(known.sum())),
        AP: (float(by_class[:, known].mean(0).sum()), int(known.sum())),
        RECALL: (right, objects),
        FALSE: (wrong, len(found)),
        EVALUATIONS: (1, 1),
    }


def detection_ratios(sums: Metrics) -> dict[str, float]:
    """Return what merged sums stand for: average precisions of a single evaluation alone."""
    if not sums:
        return {}
    means = {name: total / weight for name, (total, weight) in sums.items() if weight}
    evaluations = means.pop(EVALUATIONS) * sums[EVALUATIONS][1]
    if evaluations > 1:
        means.pop(AP_50, None), means.pop(AP, None)
    (right, objects), (wrong, _) = sums[RECALL], sums[FALSE]
    if objects:
        means[F1] = 2 * right / (right + wrong + objects)
    return means


def average_precisions(
    found: Sequence[Found], truth: Sequence[Truth], num_classes: int
) -> NDArray[np.float64]:
    """Return COCO's average precision at overlaps of 0.5, 0.55 to 0.95 for each class, (10, num_classes).

    A class that no image shows has NaN. An ignored region counts neither way for every class, where COCO has
    a crowd so for its own category alone.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    annotations = [
        {"image_id": image, "category_id": category, "iscrowd": int(label == IGNORED), **_sides(box)}
        for image, there in enumerate(truth, start=1)
        for box, label in zip(there.box.tolist(), there.label.tolist(), strict=True)
        for category in (range(num_classes) if label == IGNORED else [label])
    ]
    results = [
        {"image_id": image, "category_id": label, "score": score, **_sides(box)}
        for image, each in enumerate(found, start=1)
        for box, label, score in zip(each.box.tolist(), each.label.tolist(), each.score.tolist(), strict=True)
    ]
    there = COCO(
        {
            "images": [{"id": image} for image in range(1, len(truth) + 1)],
            "categories": [{"id": number, "name": str(number)} for number in range(num_classes)],
            "annotations": [{"id": number, **each} for number, each in enumerate(annotations, start=1)],
        }
    )
    evaluation = COCOeval_faster(there, there.loadRes(results), "bbox", print_function=_silent)
    evaluation.params.maxDets = [_MOST_FOUND]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], np.float64)[:, :, :, 0, 0]  # (10, 101, num_classes)
    means: NDArray[np.float64] = np.where(precision < 0, np.nan, precision).mean(1)
    return means


def _sides(box: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}


def _silent(*_: object) -> None:
    """Say nothing of each step."""


def _compared(found: Found, truth: Truth) -> tuple[int, int]:
    """Return how many of the boxes that are certain are right, and how many wrong, as COCO matches them.

    The surest first, each takes the object of its class that it overlaps most and none has taken. One that
    takes none and lies in an ignored region is neither.
    """
    from torchvision.ops import box_iou

    certain = found.score >= CERTAIN
    boxes, labels = found.box[certain], found.label[certain]
    aside = truth.label == IGNORED
    overlap = box_iou(boxes, truth.box) * (labels[:, None] == truth.label)
    covered = (_part_in(boxes, truth.box[aside]) >= OVERLAP).any(1)
    right = wrong = 0
    for place in range(len(boxes)):
        best = int(overlap[place].argmax()) if len(truth.box) else -1
        if best >= 0 and overlap[place, best] >= OVERLAP:
            right += 1
            overlap[:, best] = 0
        elif not covered[place]:
            wrong += 1
    return right, wrong


def _part_in(boxes: Tensor, regions: Tensor) -> Tensor:
    """Return which part of each box lies in each region: (n, 4), (r, 4) -> (n, r)."""
    starts = torch.maximum(boxes[:, None, :2], regions[:, :2])
    ends = torch.minimum(boxes[:, None, 2:], regions[:, 2:])
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1, keepdim=True)
    return (ends - starts).clamp(min=0).prod(2) / sizes
