"""The layers of many clients at once: what `torch.func.vmap` computes, by fewer and simpler operations.

vmap makes one convolution in groups of all clients' convolutions, and puts their axis (K) between others. On
a CPU, products of matrices are faster, and tensors in which K stays in front. What is not replaced here, such
as a layer that somebody maps over once more, goes vmap's way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch as functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

OURS = 1
"""How deep the vmap over clients lies: nobody maps over it."""
SMALL_WINDOW = 32
"""Numbers that a convolution sees at a time, up to which it becomes a product of matrices."""
IGNORED = -100
"""Target that cross-entropy leaves out, unless it is told otherwise."""


class StackedLayers(TorchFunctionMode):
    """Replaces layers under a vmap over clients, as long as it is entered."""

    def __init__(self, num_clients: int) -> None:
        super().__init__()
        self.num_clients = num_clients

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute a layer for all clients, or leave it to vmap."""
        given = kwargs or {}
        layer = LAYERS.get(func)
        count = NUM_TENSORS.get(func, 0)
        if layer is None or not _are_ours(args[:count]) or any(map(torch.is_tensor, given.values())):
            return func(*args, **given)
        stacked = [self._of_all(each) for each in args[:count]]
        with temporarily_clear_interpreter_stack():
            result = layer(*stacked, *args[count:], **given)
        return func(*args, **given) if result is None else functorch._add_batch_dim(result, 0, OURS)

    def _of_all(self, tensor: Tensor | None) -> Tensor | None:
        """(...) of one client -> (K, ...)."""
        if tensor is None or not functorch.is_batchedtensor(tensor):
            return None if tensor is None else tensor.expand(self.num_clients, *tensor.shape)
        return functorch._remove_batch_dim(tensor, OURS, self.num_clients, 0)


def _are_ours(tensors: Sequence[Tensor | None]) -> bool:
    """Return whether these are stacked by the vmap over clients, some of them, and the others by none."""
    wrapped = [each for each in tensors if each is not None and functorch.is_functorch_wrapped_tensor(each)]
    return bool(wrapped) and all(
        functorch.is_batchedtensor(each) and functorch.maybe_get_level(each) == OURS for each in wrapped
    )


class _Product(Function):
    """(K, N, I), (K, O, I), (K, 1, O) -> (K, N, O), whose gradients lie in memory as what they are of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x times the transposed weight, and the bias."""
        ctx.save_for_backward(x, weight)
        turned = weight.transpose(1, 2)
        return torch.bmm(x, turned) if bias is None else torch.baddbmm(bias, x, turned)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradients of all three."""
        (x, weight), (gradient,) = ctx.saved_tensors, gradients
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            torch.bmm(gradient, weight) if of_x else None,
            torch.bmm(gradient.transpose(1, 2), x) if of_weight else None,
            gradient.sum(1, keepdim=True) if of_bias else None,
        )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(K, ..., I), (K, O, I), (K, O) -> (K, ..., O)."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    y: Tensor = _Product.apply(flat, weight, None if bias is None else bias.unsqueeze(1))
    return y.view(*x.shape[:-1], weight.shape[1])


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """(K, B, C, H, W), (K, O, C, h, w), (K, O) -> (K, B, O, H', W'); None for what is left to vmap."""
    if x.ndim != 5 or groups != 1 or isinstance(padding, str):
        return None
    num_clients, num_outputs = weight.shape[:2]
    if x.requires_grad or weight[0, 0].numel() > SMALL_WINDOW:
        # (K, B, C, ...) -> (B, K * C, ...)
        side_by_side = x.transpose(0, 1).flatten(1, 2)
        flat_bias = None if bias is None else bias.flatten()
        y = F.conv2d(side_by_side, weight.flatten(0, 1), flat_bias, stride, padding, dilation, num_clients)
        return y.view(len(y), num_clients, num_outputs, *y.shape[2:]).transpose(0, 1).contiguous()
    windows, sides = _windows(x, weight.shape[-2:], _pair(stride), _pair(padding), _pair(dilation))
    kernels = weight.flatten(2)  # (K, O, C * h * w)
    y = torch.bmm(kernels, windows) if bias is None else torch.baddbmm(bias.unsqueeze(2), kernels, windows)
    return y.view(num_clients, num_outputs, x.shape[1], *sides).transpose(1, 2).contiguous()


def _windows(
    x: Tensor, kernel: Sequence[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[Tensor, list[int]]:
    """Return what the kernel sees at each of its places (K, C * h * w, B * H' * W'), and (H', W')."""
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    num_clients, batch, channels = x.shape[:3]
    of_client, of_example, of_channel, *of_pixel = padded.stride()
    spans = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    sides = [(padded.shape[3 + axis] - spans[axis]) // stride[axis] + 1 for axis in (0, 1)]
    seen = padded.as_strided(
        (num_clients, channels, *kernel, batch, *sides),
        (
            of_client,
            of_channel,
            *(of_pixel[axis] * dilation[axis] for axis in (0, 1)),
            of_example,
            *(of_pixel[axis] * stride[axis] for axis in (0, 1)),
        ),
    )
    return seen.reshape(num_clients, channels * kernel[0] * kernel[1], -1), sides


def _pair(given: Any) -> list[int]:
    return [given, given] if isinstance(given, int) else list(given)


def _cross_entropy(logits: Tensor, target: Tensor, **options: Any) -> Tensor | None:
    """(K, B, C), (K, B) -> means (K,); None for what is left to vmap."""
    usual = all(options.get(name, default) == default for name, default in USUAL.items())
    if logits.ndim != 3 or target.ndim != 2 or target.is_floating_point() or not usual:
        return None
    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
    return losses.sum(1) / (target != IGNORED).sum(1)


USUAL: Mapping[str, object] = {
    "weight": None,
    "size_average": None,
    "ignore_index": IGNORED,
    "reduce": None,
    "reduction": "mean",
    "label_smoothing": 0.0,
}
"""Options of cross-entropy, as `torch.nn.functional` hands them on."""
LAYERS: Mapping[Any, Callable[..., Tensor | None]] = {
    F.linear: _linear,
    F.conv2d: _conv2d,
    F.cross_entropy: _cross_entropy,
}
"""A function of torch -> what it is for all clients."""
NUM_TENSORS: Mapping[Any, int] = {F.linear: 3, F.conv2d: 3, F.cross_entropy: 2}
"""How many of its first arguments are tensors."""
