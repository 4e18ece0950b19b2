"""Layers of stacked clients give the numbers, and the gradients, that vmap gives."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from models.stacking import LAYERS, StackedLayers

K, B = 3, 4


def drawn(*shape: int, grad: bool = True) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_(grad)


def labels(*shape: int) -> Tensor:
    return torch.randint(5, shape)


IMAGES, MAPS = drawn(K, B, 2, 7, 6, grad=False), drawn(K, B, 2, 7, 6)
KERNELS, BIASES = drawn(K, 5, 2, 3, 2), drawn(K, 5)
IGNORING = torch.tensor([[0, 1, -100, 3], [1, 1, 1, 1], [2, -100, -100, 0]])
CASES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "linear": (F.linear, (drawn(K, B, 6), drawn(K, 5, 6), drawn(K, 5))),
    "linear without bias": (F.linear, (drawn(K, B, 6), drawn(K, 5, 6))),
    "linear of sequences": (F.linear, (drawn(K, B, 3, 6), drawn(K, 5, 6), drawn(K, 5))),
    "linear of one vector": (F.linear, (drawn(K, 6), drawn(K, 5, 6), drawn(K, 5))),
    "first convolution": (lambda *x: F.conv2d(*x, padding=1), (IMAGES, KERNELS, BIASES)),
    "with strides": (lambda x, w: F.conv2d(x, w, None, (2, 1), (0, 2), (1, 2)), (IMAGES, KERNELS)),
    "deep convolution": (lambda *x: F.conv2d(*x, padding=1), (MAPS, KERNELS, BIASES)),
    "in groups": (lambda x, w: F.conv2d(x, w, groups=2), (IMAGES, drawn(K, 4, 1, 3, 3))),
    "padded by name": (lambda *x: F.conv2d(*x, padding="same"), (IMAGES, drawn(K, 5, 2, 3, 3), BIASES)),
    "of one image": (F.conv2d, (drawn(K, 2, 7, 6), KERNELS, BIASES)),
    "cross-entropy": (F.cross_entropy, (drawn(K, B, 5), labels(K, B))),
    "ignoring": (F.cross_entropy, (drawn(K, B, 5), IGNORING)),
    "smoothed": (lambda *x: F.cross_entropy(*x, label_smoothing=0.1), (drawn(K, B, 5), labels(K, B))),
    "summed": (lambda *x: F.cross_entropy(*x, reduction="sum"), (drawn(K, B, 5), labels(K, B))),
    "of probabilities": (F.cross_entropy, (drawn(K, B, 5), drawn(K, B, 5).detach().softmax(2))),
    "of pixels": (F.cross_entropy, (drawn(K, B, 5, 3), labels(K, B, 3))),
}


def computed(layer: Callable[..., Tensor], given: tuple[Tensor, ...], mode: Any) -> list[Tensor]:
    with mode:
        result = vmap(layer)(*given)
    learned = [each for each in given if each.requires_grad]
    return [result, *torch.autograd.grad((result * result).sum(), learned)]


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_what_vmap_makes_of_it(name: str) -> None:
    layer, given = CASES[name]
    usual, ours = computed(layer, given, nullcontext()), computed(layer, given, StackedLayers(K))
    for one, other in zip(usual, ours, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_what_is_the_same_for_all_clients_counts_for_each() -> None:
    x, weight = drawn(K, B, 6), drawn(5, 6)
    with StackedLayers(K):
        result = vmap(lambda own: F.linear(own, weight))(x)
    torch.testing.assert_close(result, x @ weight.T)


def test_layers_that_are_mapped_over_again_are_left_to_vmap() -> None:
    x, weight = drawn(K, B, 2, 6), drawn(K, 5, 6)
    with StackedLayers(K):
        result = vmap(lambda own, w: vmap(lambda each: F.linear(each, w))(own))(x, weight)
    torch.testing.assert_close(result, torch.einsum("kbni,koi->kbno", x, weight))


def test_layers_outside_of_a_stack_stay_as_they_are() -> None:
    x, layer = torch.randn(B, 6), nn.Linear(6, 5)
    with StackedLayers(K):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


def test_gradients_lie_in_memory_as_weights_do() -> None:
    """Or an optimizer would step through two tensors in different orders, which takes far longer."""
    x, weight = drawn(K, B, 6), drawn(K, 5, 6)
    with StackedLayers(K):
        vmap(F.linear)(x, weight).sum().backward()
    assert all(each.grad is not None and each.grad.is_contiguous() for each in (x, weight))


def test_each_layer_is_one_that_torch_calls() -> None:
    """A network made of modules meets all of them: torch has not renamed one."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 5))
    met = []

    class Noting(StackedLayers):
        def __torch_function__(self, func: Any, *rest: Any) -> Any:
            met.append(func)
            return super().__torch_function__(func, *rest)

    with Noting(K):
        vmap(lambda image, label: F.cross_entropy(net(image), label))(
            torch.randn(K, B, 1, 4, 4), labels(K, B)
        )
    assert LAYERS.keys() <= set(met)
