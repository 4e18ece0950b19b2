"""Reading a file of weights: safetensors, or what torch.save made of a `state_dict()`, without running it."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.core.errors import UserError

TORCH_FILES = (".pt", ".pth", ".bin")
"""How files are called that torch.save wrote."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights by name; UserError where the file cannot be read, or holds anything else."""
    try:
        return _read_torch(path) if path.suffix in TORCH_FILES else load_file(path)
    except UnpicklingError:  # torch's own words tell how to run what is in the file
        why = "it is damaged, or holds more than the tensors of a state_dict()"
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError) as error:
        why = " ".join(str(error).split())[:200]
    raise UserError(f"init-from {path} cannot be read ({why}): give another run or file")


def _read_torch(path: Path) -> dict[str, Tensor]:
    held = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(held, Mapping) or not all(isinstance(each, Tensor) for each in held.values()):
        raise ValueError("it holds more than the tensors of a state_dict()")
    return {str(name): tensor.detach().contiguous() for name, tensor in held.items()}
