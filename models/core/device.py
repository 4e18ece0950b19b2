"""Where a worker computes, with how many threads, and how tensors get there."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.core.errors import UserError

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable by which cuBLAS, and cuDNN's LSTM, always add in the same order."""


def choose_device(requested: str, num_gpus: int, granted: Sequence[int] | None) -> torch.device:
    """Return the device for `requested`, on a host where torch sees `num_gpus` GPUs.

    `granted` are the GPUs that Ray gave this worker, or None outside of Ray. Ray hides all other GPUs
    from the process, so a granted worker finds its own at index 0. Raises UserError for a GPU that is
    not there.
    """
    available = num_gpus > 0 and (granted is None or len(granted) > 0)
    if requested == "auto":
        return torch.device("cuda:0" if available else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", requested):
        raise UserError(f"device must be auto, cpu, cuda or cuda:N, got {requested!r}")
    device = torch.device(requested)
    if device.type == "cuda" and not available:
        reason = "torch sees no GPU" if num_gpus == 0 else "Ray gave this worker none: set client-gpus"
        raise UserError(f"device is {requested!r}, but {reason}")
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise UserError(f"device is {requested!r}, but torch sees {num_gpus} GPUs, numbered from 0")
    return device


def place(model: nn.Module, device: torch.device, channels_last: bool = False) -> nn.Module:
    """Return the model on the device; with `channels_last` its images and kernels have channels last.

    That is a layout of memory, not of the numbers in it. Kernels of convolutions go by that of their weights.
    """
    if device.type == "cuda":
        os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")  # it is read when cuBLAS starts
    model = model.to(device)
    if channels_last:
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 4:  # not Module.to(memory_format=...), which refuses a Conv3d
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model


def moved(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the columns of a batch on the device.

    A copy to a GPU is queued behind what that still computes, and not waited for: it goes by way of pinned
    memory, since the driver would wait before it copies any other.
    """
    if device.type == "cpu":
        return {name: column if column.is_cpu else column.cpu() for name, column in batch.items()}
    if device.type != "cuda":
        return {name: column.to(device) for name, column in batch.items()}
    return {
        name: column if column.is_cuda else column.pin_memory().to(device, non_blocking=True)
        for name, column in batch.items()
    }


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Compute with this many threads: more of them would add the same floats in another order.

    On a GPU, by kernels that give the same bits every time, and in float32 where that is asked for:
    torch lets cuDNN round to TF32, whose fraction has 10 bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _set(cudnn, "deterministic", True), _set(cudnn, "allow_tf32", False), _repeatable_on_gpu():
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _set(module: Any, name: str, value: object) -> Iterator[None]:
    """Set a setting of torch, and put it back."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _repeatable_on_gpu() -> Iterator[None]:
    """Choose kernels that repeat, where this process computes on a GPU; on a CPU all of torch's do.

    An operation that has none is warned about. Of attention only the plain one repeats: the fused ones would
    do so too, but not as long as other operations are allowed to be warned about.
    """
    if not torch.cuda.is_initialized():
        yield
        return
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        # Filling what is uninitialised is a check, which costs time.
        with (
            _set(torch.utils.deterministic, "fill_uninitialized_memory", False),
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield
    finally:
        torch.set_deterministic_debug_mode(before)
