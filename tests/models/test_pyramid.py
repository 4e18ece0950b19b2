"""Networks that halve an image to a vector and lead back: shapes and sizes."""

from typing import Any

import pytest
import torch

from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.images.densenet import DownDense
from models.images.pyramid import Down, Up, check_pyramid, image_shape
from models.images.unet import UnetDecoder

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 9, 30), (1, 31, 64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("blocks", ["plain", "resnet"])
def test_down_and_up_fit_any_image(shape: tuple[int, int, int], blocks: str) -> None:
    down, up = Down(shape, 5, 8, blocks), Up(shape, 5, 8, blocks)
    vector = down(torch.rand(3, *shape))
    assert vector.shape == (3, 5)
    assert up(vector).shape == (3, *shape)
    up(vector).sum().backward()
    assert all(weight.grad is not None for part in (down, up) for weight in part.parameters())


@pytest.mark.parametrize("shape", [*SHAPES, (3, 64, 64)])
def test_a_dense_discriminator_and_a_unet_fit_any_image(shape: tuple[int, int, int]) -> None:
    down, up = Down(shape, 5, 8, "densenet"), UnetDecoder(shape, 5, 8, "resnet")
    vector = down(torch.rand(3, *shape))
    assert vector.shape == (3, 5)
    assert up(vector).shape == (3, *shape)
    up(vector).sum().backward()
    assert all(weight.grad is not None for part in (down, up) for weight in part.parameters())
    assert [*down.buffers(), *up.buffers()] == []


def test_each_layer_of_a_dense_block_sees_all_before_it() -> None:
    """16 channels, and 8 more after each of three layers, are 40 at the transition."""
    block = DownDense(16, 32)
    assert [layer[2].in_channels for layer in block.layers] == [16, 24, 32]
    assert [layer[5].out_channels for layer in block.layers] == [8, 8, 8]
    layers = sum(2 * inputs + (inputs * 32 + 32) + 2 * 32 + (32 * 8 * 9 + 8) for inputs in (16, 24, 32))
    assert num_parameters(block) == layers + 2 * 40 + (40 * 32 + 32)
    x = torch.rand(2, 16, 4, 6)
    assert block(x).shape == (2, 32, 2, 3)


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_28x28_pair_has_the_layers_of_the_paper() -> None:
    """28 -> 14 -> 7 pixels with 32 -> 64 channels by 4x4 kernels, and back."""
    down = num_parameters(Down((1, 28, 28), 1, 32, "plain"))
    assert down == (16 * 32 + 32) + (16 * 32 * 64 + 64) + 2 * 64 + (64 * 7 * 7 + 1)
    up = num_parameters(Up((1, 28, 28), 100, 32, "plain"))
    linear = 100 * 64 * 7 * 7 + 64 * 7 * 7
    assert up == linear + 2 * 64 + (16 * 64 * 32 + 32) + 2 * 32 + (16 * 32 + 1)


@pytest.mark.parametrize(("side", "smallest"), [(8, 2), (16, 4), (28, 7), (31, 8), (32, 4), (64, 4)])
def test_how_few_pixels_are_left(side: int, smallest: int) -> None:
    assert Up((1, side, side), 4, 8, "plain").smallest[1:] == (smallest, smallest)


def test_nothing_is_remembered() -> None:
    """Running statistics would be averaged over clients whose data differ."""
    for blocks in ("plain", "resnet"):
        assert list(Down((1, 8, 8), 1, 8, blocks).buffers()) == []
        assert list(Up((1, 8, 8), 1, 8, blocks).buffers()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": 0}, "latent must be >= 1, got 0"),
        ({"width": 12}, "width must be a positive multiple of 8, got 12"),
        ({"width": 0}, "width must be a positive multiple of 8, got 0"),
        ({"blocks": "resnets"}, "unknown blocks 'resnets': did you mean resnet?"),
    ],
)
def test_a_wrong_option(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_pyramid(**{"latent": 1, "width": 8, "blocks": "plain"} | change)
    assert str(error.value) == message


def test_an_image_that_is_too_small() -> None:
    rows = Examples({"image": torch.zeros(2, 1, 28, 7, dtype=torch.uint8)})
    with pytest.raises(UserError, match="images must be 8x8 or larger, got 28x7"):
        image_shape(Dataset("toy", "images", rows, rows))
