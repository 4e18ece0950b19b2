"""Networks by name: torchvision's classifiers, fitted to the images and the classes of a dataset.

They are made for photographs of 224 pixels and 1,000 classes. Here the last layer has the dataset's classes,
and the first one the channels of its images. Images of SMALL pixels or less are not shrunk at first: a first
convolution that takes steps becomes one of 3x3 pixels without them, and a max pool right behind it is left
out, as is usual for CIFAR (He et al. 2016, arXiv:1512.03385, section 4.2). Networks that begin with patches
(ViT, Swin, ConvNeXt) keep them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.core.config import require
from models.core.errors import UserError, unknown
from models.images.group_norm import with_group_norm

# torchvision is imported where a network is named: it takes over a second.

SMALL = 64
"""Pixels of a side up to which an image is not shrunk by the first layers."""
NORMS = ("group", "batch")
STACKED = frozenset(
    {
        nn.Conv2d, nn.Linear, nn.GroupNorm, nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid,
        nn.Sigmoid, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity,
    }
)  # fmt: skip
"""Layers that draw nothing and remember nothing: clients with them may train side by side."""
_ONE_VALUE = "Expected more than 1 value per channel when training"
"""What BatchNorm says of one example whose map has one pixel."""


class NamedClassifier(nn.Module):
    """A network in two parts: its last layers, the `classifier`, and all before them, the `features`."""

    def __init__(self, features: nn.Module, classifier: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.features, self.classifier, self.shape = features, classifier, shape

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, num_classes)."""
        found: Tensor = self.features(image).flatten(1).unflatten(1, self.shape)
        logits: Tensor = self.classifier(found)
        return logits.flatten(1)


@dataclass(frozen=True)
class Sizes:
    """What can be said of a network before it has weights."""

    head: tuple[int, ...]
    """The shape that an example has where the classifier begins."""
    map: tuple[int, int, int]
    """Channels, height and width of an example's features before they are pooled."""
    unstackable: str
    """Why clients cannot train it side by side, as the end of a sentence; "" where they can."""
    trains_on_one: bool
    """Whether it trains on a batch of one example."""


@dataclass(frozen=True)
class NamedNetwork:
    """One of torchvision's classifiers for images of a size.

    Raises UserError for an unknown name, and where the network fits neither the images nor the norm.
    """

    name: str
    shape: tuple[int, int, int]
    """Channels, height and width of the images."""
    norm: str
    """"group" puts GroupNorm in the place of every BatchNorm; "batch" and "" leave the network as it is."""

    sizes: Sizes = field(init=False)

    def __post_init__(self) -> None:
        if self.norm:
            require(self.norm in NORMS, f"norm of {self.name}", f"one of {', '.join(NORMS)}", self.norm)
        object.__setattr__(self, "sizes", _sizes(self))

    @property
    def map(self) -> tuple[int, int, int]:
        """Channels, height and width of an image's features before they are pooled."""
        return self.sizes.map

    @property
    def unstackable(self) -> str:
        """Why clients cannot train it side by side, as the end of a sentence; "" where they can."""
        return self.sizes.unstackable

    @property
    def trains_on_one(self) -> bool:
        """Whether it trains on a batch of one example."""
        return self.sizes.trains_on_one

    def classifier(self, num_classes: int) -> nn.Module:
        """Return the whole network with freshly drawn weights."""
        features, head = in_two(self.build(num_classes))
        return NamedClassifier(features, head, self.sizes.head)

    def features(self) -> nn.Module:
        """Return what finds features: (B, C, H, W) -> (B, c * h * w) by the sizes of `map`, or as a map."""
        features, _ = in_two(self.build(1))
        if pool_of(features):
            features.avgpool = nn.Identity()
        return features

    def build(self, num_classes: int) -> nn.Module:
        """Return torchvision's network, with the layers replaced that have to be."""
        network = _builder(self.name)(num_classes=num_classes, **_arguments(self.name, self.shape))
        norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
        require(bool(norms) or not self.norm, "norm", f"left out: {self.name} has no BatchNorm", self.norm)
        if self.norm == "group":
            with_group_norm(network)
        _fit_first_layer(network, self.shape)
        return network


def in_two(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Take the last child, which classifies, out of a network; return the rest, and the child."""
    *_, (name, head) = network.named_children()
    setattr(network, name, nn.Identity())
    return network, head


def pool_of(features: nn.Module) -> nn.Module | None:
    """Return the layer that takes the means over an image; None where no layer of its own does."""
    pool = getattr(features, "avgpool", None)
    return pool if isinstance(pool, nn.AdaptiveAvgPool2d) else None


def _builder(name: str) -> Callable[..., nn.Module]:
    """Return what builds a network; torchvision's registry says it, and nothing is imported by a name."""
    from torchvision import models

    names = models.list_models(module=models)  # classifiers alone: detectors lie in modules below
    if name not in names:
        raise unknown("network", name, names)
    builder: Callable[..., nn.Module] = models.get_model_builder(name)
    return builder


def _arguments(name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return what a network must be told beside the number of classes."""
    _, height, width = shape
    if name in ("googlenet", "inception_v3"):  # without the second classifier, which only training knows
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": height}
    return {"input_size": (height, width)} if name.startswith("maxvit") else {}


def _fit_first_layer(network: nn.Module, shape: tuple[int, int, int]) -> None:
    channels, *sides = shape
    layers = list(network.named_modules())
    place = next(place for place, (_, layer) in enumerate(layers) if isinstance(layer, nn.Conv2d))
    path, first = layers[place]
    assert isinstance(first, nn.Conv2d)
    overlapping = first.kernel_size[0] > first.stride[0] > 1  # else it cuts the image into patches
    if max(sides) <= SMALL and overlapping:
        _replace(network, path, _like(first, channels, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)))
        for behind, layer in layers[place + 1 :]:
            if isinstance(layer, nn.Conv2d):
                break
            if isinstance(layer, nn.MaxPool2d):
                _replace(network, behind, nn.Identity())
    elif channels != first.in_channels:
        _replace(network, path, _like(first, channels))


def _like(first: nn.Conv2d, channels: int, **changes: tuple[int, int]) -> nn.Conv2d:
    """Return a convolution like this one, drawn as torchvision's residual networks draw theirs."""
    geometry: dict[str, Any] = {
        "kernel_size": first.kernel_size, "stride": first.stride, "padding": first.padding, **changes
    }  # fmt: skip
    layer = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **geometry)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _replace(network: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, layer)


def _sizes(network: NamedNetwork) -> Sizes:
    """Run the network on the shapes alone, as if it trained on one example, or else on two."""
    try:
        features = _without_weights(network)
        layers = list(features.modules())
        features, _ = in_two(features)
        *_, (_, end) = features.named_children()
        given: dict[nn.Module, tuple[int, ...]] = {}
        for place in {end, pool_of(features) or end}:
            place.register_forward_pre_hook(
                lambda place, inputs: given.update({place: tuple(inputs[0].shape[1:])})
            )
        trains_on_one = _runs(features, network.shape, 1) or not _runs(features, network.shape, 2)
    except UserError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        channels, height, width = network.shape
        raise UserError(
            f"network {network.name!r} does not take images of {height}x{width} with {channels} channels: "
            f"take another one, such as resnet18, or larger images ({' '.join(str(error).split())[:200]})"
        ) from error
    channels, rows, columns = (*given[pool_of(features) or end], 1, 1)[:3]
    return Sizes(given[end], (channels, rows, columns), _unstackable(layers), trains_on_one)


def _without_weights(network: NamedNetwork) -> nn.Module:
    """Return the network on torch's "meta" device, which knows shapes alone."""
    try:
        with torch.device("meta"):
            return network.build(1)
    except NotImplementedError:  # a RegNet computes its widths by tensors
        with torch.random.fork_rng(devices=[]):
            return network.build(1).to("meta")


def _runs(network: nn.Module, shape: tuple[int, int, int], num_examples: int) -> bool:
    """Run a training network; return whether it takes so few examples."""
    try:
        network(torch.zeros(num_examples, *shape, device="meta"))
    except ValueError as error:
        if num_examples > 1 or _ONE_VALUE not in str(error):
            raise
        return False
    return True


def _unstackable(layers: list[nn.Module]) -> str:
    """Return why clients cannot train a network of these modules side by side; "" where they can."""
    strange = [layer for layer in layers if not list(layer.children()) and type(layer) not in STACKED]
    for layer in strange:
        if isinstance(layer, nn.BatchNorm2d):
            return "has BatchNorm, whose running statistics a stack would lose"
    return f"has layers of {type(strange[0]).__name__}, which are not known to stack" if strange else ""
