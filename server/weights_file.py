"""Reading a file of weights: safetensors, or what torch.save made of a `state_dict()`, without running it."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.core.errors import UserError, shown

TORCH_FILES = (".pt", ".pth", ".bin")
"""How files are called that torch.save wrote."""
_MORE = "it is damaged, or holds other things than the tensors of a state_dict()"
_TELLING = (SafetensorError, OSError, ValueError, RuntimeError, EOFError)
"""Errors whose text says what is wrong with a file."""


def read_weights(path: Path, asked_by: str = "init-from ") -> dict[str, Tensor]:
    """Return the weights by name; UserError where the file cannot be read, or holds anything else."""
    try:
        return _read_torch(path) if path.suffix in TORCH_FILES else load_file(path)
    except UnpicklingError:  # torch's own words tell how to run what is in the file
        why = _MORE
    except Exception as error:  # torch and safetensors raise whatever what they read with does
        told = isinstance(error, _TELLING)
        why = (" ".join(str(error).split())[:200] if told else "") or _MORE
    raise UserError(f"{asked_by}{path} cannot be read ({why}): give another run or file")


def _read_torch(path: Path) -> dict[str, Tensor]:
    held = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(held, Mapping) or not all(isinstance(each, Tensor) for each in held.values()):
        raise ValueError(_MORE)
    for name, tensor in held.items():
        if not isinstance(name, str):
            raise ValueError(f"names of weights must be texts, got {shown(name)}")
        if wrong := _wrong(tensor):
            raise ValueError(
                f"{shown(name)} must be a plain tensor with all its values in the file, got {wrong}"
            )
    return {name: tensor.detach().contiguous() for name, tensor in held.items()}


def _wrong(tensor: Tensor) -> str:
    """Return why a tensor cannot be taken as it is, or would take more memory than its file says; ""."""
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        return "a nested, sparse or quantized one"
    if tensor.device.type != "cpu":
        return f"one on the device {tensor.device.type}"
    needed, held = tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes()
    return f"{needed:,} bytes of {held:,}" if needed > held else ""
