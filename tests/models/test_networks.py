"""Networks by name: what is fitted to images, classes and norms, and what of them is refused."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.images.classifiers import NamedClassifier, NamedNetwork
from models.images.cnn import ImageClassification
from models.images.contrastive import ContrastiveLearning
from models.images.group_norm import num_groups, with_group_norm
from models.images.masked_pixels import MaskedPixels
from models.registry import load_task, why_not_stackable
from models.state import build_model, describe_state

SMALL = "shufflenet_v2_x0_5"
"""The quickest to build."""


def toy(shape: tuple[int, int, int] = (1, 8, 8), num_rows: int = 6) -> Dataset:
    image = torch.randint(0, 5, (num_rows, *shape), dtype=torch.uint8)
    rows = Examples({"image": image, "label": torch.arange(num_rows) % 3})
    return Dataset("toy", "images", rows, rows, "label", ("a", "b", "c"), info={"max_value": 4})


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(3, 1), (7, 1), (8, 1), (16, 2), (24, 3), (64, 8), (58, 2), (100, 10), (256, 32), (512, 32), (2048, 32)],
)
def test_how_many_groups(channels: int, groups: int) -> None:
    assert num_groups(channels) == groups


def test_group_norm_takes_batch_norms_place_and_what_it_begins_with() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Sequential(nn.BatchNorm2d(16, eps=0.001)), nn.ReLU())
    names = [name for name, _ in network.named_parameters()]
    nn.init.constant_(network[1][0].weight, 0.25)
    assert with_group_norm(network) == 1
    norm = network[1][0]
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels, norm.eps) == (2, 16, 0.001)
    assert norm.weight.eq(0.25).all()
    assert [name for name, _ in network.named_parameters()] == names
    assert list(network.buffers()) == []


def test_resnet18_for_cifar() -> None:
    """The network of the papers on CIFAR: 11,173,962 parameters."""
    network = NamedNetwork("resnet18", (3, 32, 32), "group")
    with torch.device("meta"):
        model = network.classifier(10)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert sum(weight.numel() for weight in model.parameters()) == 11_173_962
    assert list(model.buffers()) == []
    lines = describe_state(model.state_dict())
    assert lines[0] == "features.conv1.weight torch.float32 (64, 3, 3, 3)"
    assert lines[-2:] == ["classifier.weight torch.float32 (10, 512)", "classifier.bias torch.float32 (10,)"]
    assert model.features.conv1.stride == (1, 1)
    assert isinstance(model.features.maxpool, nn.Identity)
    assert network.map == (512, 4, 4)


@pytest.mark.parametrize(
    ("shape", "kernel", "pools", "features"),
    [
        ((1, 64, 64), (64, 1, 3, 3), nn.Identity, (512, 8, 8)),
        ((3, 65, 64), (64, 3, 7, 7), nn.MaxPool2d, (512, 3, 2)),
        ((1, 224, 224), (64, 1, 7, 7), nn.MaxPool2d, (512, 7, 7)),
    ],
)
def test_small_images_are_not_shrunk_at_first(
    shape: tuple[int, int, int], kernel: tuple[int, ...], pools: type[nn.Module], features: tuple[int, ...]
) -> None:
    network = NamedNetwork("resnet18", shape, "")
    with torch.device("meta"):
        built = network.build(3)
    assert built.conv1.weight.shape == kernel
    assert isinstance(built.maxpool, pools)
    assert network.map == features


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("convnext_tiny", (768, 1, 1)),
        ("efficientnet_b0", (1280, 2, 2)),
        ("googlenet", (1024, 4, 4)),
        ("mobilenet_v2", (1280, 1, 1)),
        ("regnet_y_400mf", (440, 2, 2)),
        ("squeezenet1_1", (512, 8, 8)),
        ("swin_t", (768, 1, 1)),
        ("vgg11_bn", (512, 1, 1)),
        ("vit_b_16", (768, 1, 1)),
    ],
)
def test_other_families_classify_small_images(name: str, features: tuple[int, int, int]) -> None:
    network = NamedNetwork(name, (1, 32, 32), "")
    # On shapes alone, but for a RegNet, which computes its widths by tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        assert network.classifier(7)(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
        found = network.features()(torch.zeros(2, 1, 32, 32)).flatten(1)
    assert network.map == features
    assert found.shape == (2, features[0] * features[1] * features[2])


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
@torch.no_grad()
def test_a_network_in_two_parts_gives_the_numbers_of_the_whole(name: str) -> None:
    network = NamedNetwork(name, (3, 32, 32), "")
    torch.manual_seed(1)
    whole = network.build(5).eval()
    torch.manual_seed(1)
    parted = network.classifier(5).eval()
    image = torch.rand(2, 3, 32, 32)
    assert isinstance(parted, NamedClassifier)
    assert torch.equal(parted(image), whole(image))


def test_large_rgb_images_get_torchvisions_own_network() -> None:
    torch.manual_seed(1)
    ours = NamedNetwork(SMALL, (3, 65, 65), "").build(5).state_dict()
    torch.manual_seed(1)
    theirs = models.shufflenet_v2_x0_5(num_classes=5).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_features_have_one_name_in_all_three_tasks() -> None:
    options: dict[str, Any] = {"network": "resnet18", "norm": "group"}
    named = []
    for task in (ImageClassification, ContrastiveLearning, MaskedPixels):
        with torch.device("meta"):
            state = task(toy(), **options).build().state_dict()
        named.append([line for line in describe_state(state) if line.startswith("features.")])
    assert named[0] == named[1] == named[2]
    assert len(named[0]) == 60  # 20 convolutions, and as many norms of two weights


def test_weights_follow_from_the_seed() -> None:
    task = ImageClassification(toy(), network=SMALL, norm="group")
    first, second, other = (build_model(task, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["features.conv1.0.weight"], other["features.conv1.0.weight"])


@pytest.mark.parametrize("task", ["cnn", "contrastive", "masked-pixels"])
def test_every_weight_learns(task: str) -> None:
    network = SMALL if task != "masked-pixels" else "mobilenet_v3_small"
    options = f"network = '{network}', norm = 'group'"
    made = load_task(TaskConfig(task=task, task_options=options), toy((3, 32, 32)))
    model = build_model(made, 1)
    (batch,) = made.batches(model, made.dataset.train, torch.Generator().manual_seed(1), 6)
    (objective,) = made.objectives
    objective.loss(model, batch).backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert any(float(weight.grad.abs().max()) > 0 for weight in model.parameters())
    with torch.no_grad():
        metrics = made.ratios(made.evaluate(model.eval(), made.dataset.test, torch.Generator()))
    assert metrics.keys() == {made.metric, *made.metrics}


def test_who_can_be_stacked_and_why_not() -> None:
    def reason(**options: str) -> str:
        return why_not_stackable(ImageClassification(toy((3, 32, 32)), **options))

    statistics = "has BatchNorm, whose running statistics a stack would lose"
    assert reason(network="resnet18", norm="group") == ""
    assert reason(network="regnet_y_400mf", norm="group") == ""
    assert reason(network="resnet18") == reason(network="resnet18", norm="batch") == statistics
    assert reason(norm="batch") == statistics
    assert reason(network="mobilenet_v2", norm="group") == (
        "has layers of Dropout, which are not known to stack"
    )


def test_batch_norm_over_one_pixel_does_not_train_on_one_example() -> None:
    assert ImageClassification(toy((1, 8, 8)), network="resnet18", norm="group").trains_on_one(nn.Module())
    task = ImageClassification(toy((1, 8, 8), num_rows=5), network="resnet18")
    assert not task.trains_on_one(nn.Module())
    assert ImageClassification(toy((1, 32, 32)), network="resnet18").trains_on_one(nn.Module())
    batches = task.batches(nn.Module(), task.dataset.train, torch.Generator(), 2)
    assert [len(batch["label"]) for batch in batches] == [2, 3]


@pytest.mark.parametrize(
    ("task", "options", "shape", "message"),
    [
        ("cnn", "network = 'resnet19'", (3, 32, 32), "unknown network 'resnet19': did you mean resnet1"),
        ("cnn", "network = 'os:system'", (3, 32, 32), "unknown network 'os:system': known are alexnet, "),
        # A detector of torchvision's registry, and none of its classifiers.
        ("cnn", "network = 'ssd300_vgg16'", (3, 32, 32), "unknown network 'ssd300_vgg16': "),
        ("cnn", "network = 18", (3, 32, 32), "network must be text, got 18"),
        (
            "cnn",
            "network = 'resnet18', norm = 'none'",
            (3, 32, 32),
            "norm of resnet18 must be one of group, b",
        ),
        (
            "cnn",
            "network = 'convnext_tiny', norm = 'group'",
            (3, 32, 32),
            "norm must be left out: convnext_tiny has no BatchNorm, got 'group'",
        ),
        (
            "cnn",
            "network = 'vgg11'",
            (1, 8, 8),
            "network 'vgg11' does not take images of 8x8 with 1 channels: take another one, such as resnet18",
        ),
        ("cnn", "network = 'vit_b_16'", (3, 32, 48), "network 'vit_b_16' does not take images of 32x48 with"),
        (
            "masked-pixels",
            "network = 'densenet121'",
            (3, 32, 32),
            "network 'densenet121' makes one vector of an image of 32x32, and masked-pixels draws from a map",
        ),
        (
            "masked-pixels",
            "network = 'resnet18'",
            (3, 32, 36),
            "sides of images must be 4 and 5 times one number for resnet18 for masked-pixels, got '32x36'",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    task: str, options: str, shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(UserError) as error:
        load_task(TaskConfig(task=task, task_options=options), toy(shape))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
