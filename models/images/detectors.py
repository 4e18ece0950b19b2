"""Detectors of torchvision, fitted to a dataset's images: a small one, and all others by their names.

A detector takes a list of images of any size, scales them, and draws while it does. Here a batch is tensors,
images go in as large as they are, and whatever a detector draws follows from a number in the batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from models.core.config import require
from models.core.errors import UserError, unknown
from models.images.group_norm import num_groups, with_group_norm

STRIDES = (8, 16)
"""Pixels between the places of each of the small detector's maps."""
WANT_MORE = {"keypointrcnn": "key points", "maskrcnn": "masks"}
"""Beginning of a detector's name -> what it learns from beside boxes."""
Targets = Sequence[Mapping[str, Tensor]]


class Detector(nn.Module):
    """A detector of torchvision for images of one size."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        old = network.transform
        assert isinstance(old, GeneralizedRCNNTransform)
        self.channels = len(old.image_mean)
        network.transform = Fitted(
            1, 1, old.image_mean, old.image_std, old.size_divisible, fixed_size=old.fixed_size
        )

    def forward(self, image: Tensor, targets: Targets | None = None, seed: Tensor | None = None) -> Any:
        """(B, C, H, W) in [0, 1] -> losses by name, of images with `targets`; else what is found in each.

        Losses are the same in training and in evaluation, but for what a BatchNorm does. What is drawn for
        them, as the proposals that Faster R-CNN learns from, follows from the number `seed`.
        """
        for module in self.network.modules():  # the parts of a detector that ask what is wanted
            if type(module).__module__.startswith(detection.__name__):
                module.training = targets is not None
        images = list(image.expand(-1, self.channels, -1, -1))
        if targets is None:
            return self.network(images)
        with drawn_from(seed, image.device):
            return self.network(images, list(targets))


class Fitted(GeneralizedRCNNTransform):
    """Shifts pixels and lays images in a batch; they are of one size already, and nothing is drawn."""

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return image and boxes as they are, unless the detector is made for one size alone, as SSD."""
        return (image, target) if self.fixed_size is None else super().resize(image, target)

    def torch_choice(self, k: Sequence[int]) -> int:
        """Return the only size that there is to choose from."""
        return k[0]


@contextmanager
def drawn_from(seed: Tensor | None, device: torch.device) -> Iterator[None]:
    """Let what is drawn without a generator follow from a number, and leave no trace; None = nothing is."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        number = int(seed)
        torch.default_generator.manual_seed(number)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield


def small_detector(channels: int, num_classes: int, width: int, norm: str) -> Detector:
    """Return FCOS (Tian et al. 2019, arXiv:1904.01355) on a backbone of five convolutions."""
    backbone = Backbone(channels, width)
    normed = partial(nn.GroupNorm, num_groups(backbone.out_channels))
    if norm == "group":
        with_group_norm(backbone)
    out, classes = backbone.out_channels, num_classes + 1
    head = FCOSHead(out, 1, classes, num_convs=0)  # whose parts would have 32 groups
    head.classification_head = FCOSClassificationHead(out, 1, classes, num_convs=1, norm_layer=normed)
    head.regression_head = FCOSRegressionHead(out, 1, num_convs=1, norm_layer=normed)
    # On a map FCOS finds what reaches up to eight anchors far from a place: 32 pixels on the first one.
    anchors = AnchorGenerator(tuple((stride // 2,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
    return Detector(
        detection.FCOS(
            backbone,
            classes,
            image_mean=[0.5] * channels,
            image_std=[0.25] * channels,
            anchor_generator=anchors,
            head=head,
            center_sampling_radius=3.0,
            score_thresh=0.1,
            nms_thresh=0.5,
            topk_candidates=300,
            size_divisible=STRIDES[-1],
        )
    )


class Backbone(nn.Module):
    """Two maps of features, at an eighth and at a sixteenth of the image's sides."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.out_channels = 4 * width
        self.fine = nn.Sequential(
            _convolution(channels, width, 2),
            _convolution(width, 2 * width),
            nn.MaxPool2d(2),
            _convolution(2 * width, self.out_channels),
            nn.MaxPool2d(2),
            _convolution(self.out_channels, self.out_channels),
        )
        self.coarse = _convolution(self.out_channels, self.out_channels, 2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) -> two maps (B, out_channels, H / stride, W / stride)."""
        fine = self.fine(image)
        return {"fine": fine, "coarse": self.coarse(fine)}


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def check_name(name: str) -> None:
    """Raise UserError for what is no detector of boxes; torchvision's registry says which there are."""
    names = models.list_models(module=detection)
    if name not in names:
        raise unknown("network", name, names)
    for beginning, more in WANT_MORE.items():
        if name.startswith(beginning):
            raise UserError(
                f"network {name!r} also learns from {more}, which data of boxes has not: take another one, "
                f"such as {name.replace(beginning, 'fasterrcnn')}"
            )


def named_detector(name: str, num_classes: int, norm: str) -> Detector:
    """Return a detector of torchvision by its name, with freshly drawn weights."""
    check_name(name)
    network = models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes + 1)
    if norm == "group":
        changed = with_group_norm(network)
        require(bool(changed), "norm", f"'batch': {name} has no BatchNorm to replace", norm)
    return Detector(network)
