"""Beginning with the weights of an earlier run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.core.errors import UserError
from models.state import (
    by_module,
    frozen_names,
    model_state,
    shareable_names,
    tied_names,
    weights_sha256,
)
from models.text.adapters import plain_name
from server.config import ServerConfig
from server.run_schema import BEST_MODEL, LAST_MODEL, START_MODEL, TransferSummary

KEPT_MODELS = (BEST_MODEL, LAST_MODEL)
"""What a run folder may hold, in the order of preference."""


@dataclass(frozen=True)
class Transfer:
    """What became of each entry of the new model and of the old weights, by name."""

    source: str
    """The file that was read."""
    sha256: str
    """The hash of the weights in it."""
    loaded: Sequence[str]
    new: Sequence[str]
    """Entries that the old weights do not have."""
    other_shape: Sequence[str]
    """Entries that they have in another shape; as good as new."""
    local: Sequence[str]
    """Entries that they have, and that the server cannot give because they stay with the clients."""
    unused: Sequence[str]
    """Old weights that the new model has no entry for."""
    frozen: Sequence[str]
    """Entries of the model, loaded or not, that nobody trains."""

    def summary(self) -> TransferSummary:
        """Return what transfer.json holds."""
        happened = {
            "loaded": self.loaded,
            "new": self.new,
            "new, as the shape is another": self.other_shape,
            "not loaded, as it stays with the clients": self.local,
            "without a place in the model": self.unused,
            "frozen": self.frozen,
        }
        entries = {what: by_module(names) for what, names in happened.items() if names}
        return TransferSummary(source=self.source, sha256=self.sha256, entries=entries)

    def lines(self) -> list[str]:
        """Return a line for each thing that happened, for people."""
        return [
            f"init-from {self.source}, {what}: "
            + ", ".join(f"{module} ({len(names)})" for module, names in modules.items())
            for what, modules in self.summary().entries.items()
        ]


def starting_point(config: ServerConfig) -> Path:
    """Return the file of weights that the run begins with.

    Raises UserError where `init-from` is not there, or is no run that has kept a model.
    """
    own = Path(config.run_dir) / START_MODEL
    if config.resume and own.exists():
        return own
    given = Path(config.init_from)
    if not given.is_dir():
        if given.exists():
            return given
        raise UserError(f"init-from {given} is not there: give a run folder or a .safetensors file")
    for kept in KEPT_MODELS:
        if (given / kept).exists():
            return given / kept
    neither = " nor ".join(map(str, KEPT_MODELS))
    raise UserError(f"init-from {given} is no run that has kept a model: it holds neither {neither}")


def take_over(path: Path, model: nn.Module, local: Sequence[str], freeze: Sequence[str] = ()) -> Transfer:
    """Load the weights in `path` that have the name and shape of an entry of `model`, in place.

    Raises UserError where the file cannot be read, or nothing in it fits.
    """
    weights = _read(path)
    given = {plain_name(name): tensor for name, tensor in weights.items()}
    state, tied, shareable = model_state(model), tied_names(model), set(shareable_names(model, local))
    loaded: dict[str, Tensor] = {}
    new, other_shape, stays = [], [], []
    for name, tensor in state.items():
        # A file of another network may hold a tied weight under another of its names.
        old = next((given[plain] for plain in map(plain_name, tied[name]) if plain in given), None)
        if old is None:
            new.append(name)
        elif name not in shareable:
            stays.append(name)
        elif old.shape != tensor.shape:
            other_shape.append(name)
        else:
            loaded[name] = old
    places = {plain_name(name) for names in tied.values() for name in names}
    unused = [name for name in weights if plain_name(name) not in places]
    if not loaded:
        raise UserError(_nothing_fits(path, weights, state, other_shape, stays))
    for name, tensor in loaded.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"init-from {path} is broken: {name} is not finite; give another run")
    model.load_state_dict(loaded, strict=False)
    frozen = [name for name in frozen_names(model, freeze) if name in shareable]
    return Transfer(str(path), weights_sha256(weights), [*loaded], new, other_shape, stays, unused, frozen)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"init-from {path} cannot be read ({why}): give another run or file") from error


def _nothing_fits(
    path: Path, weights: Iterable[str], state: Iterable[str], other_shape: Sequence[str], stays: Sequence[str]
) -> str:
    held, wanted = (", ".join(by_module(names)) or "nothing" for names in (weights, state))
    reasons = {"of another shape": len(other_shape), "that stay with the clients": len(stays)}
    named = [f"{count} {what}" for what, count in reasons.items() if count] or ["none of an equal name"]
    return f"init-from {path} has nothing that fits: it holds {held}, the model {wanted} ({', '.join(named)})"
