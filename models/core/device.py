"""Where a worker computes, and with how many threads."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from models.core.errors import UserError


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


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Compute with this many threads: more of them would add the same floats in another order."""
    before = torch.get_num_threads()
    deterministic = torch.backends.cudnn.deterministic
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.deterministic = deterministic
