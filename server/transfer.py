"""Beginning with the weights of an earlier run."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
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
from server.run_schema import TransferSummary
from server.starting_point import StartingPoint
from server.weights_file import read_weights


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
    remarks: Sequence[str] = ()
    """What a person should know of them, a line each."""

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
        return TransferSummary(
            source=self.source, sha256=self.sha256, entries=entries, remarks=list(self.remarks)
        )

    def lines(self) -> list[str]:
        """Return a line for each thing that happened, for people."""
        happened = [
            f"init-from {self.source}, {what}: "
            + ", ".join(f"{module} ({len(names)})" for module, names in modules.items())
            for what, modules in self.summary().entries.items()
        ]
        return happened + [f"init-from {self.source}: {remark}" for remark in self.remarks]


def take_over(
    start: StartingPoint, model: nn.Module, local: Sequence[str], freeze: Sequence[str] = ()
) -> Transfer:
    """Load the weights that have the name and shape of an entry of `model`, in place.

    A weight that the model has under several names is loaded by any of them, the first one that is given.
    A file may hold one part of the model, such as a network of torchvision its `features`: its names are
    looked for as they are, or below that part where more of them have a place there.
    Raises UserError where the file cannot be read, nothing in it fits, or it does not fit the model's type.
    """
    path = start.path
    weights = read_weights(path)
    state, tied, shareable = model_state(model), tied_names(model), set(shareable_names(model, local))
    places = {plain_name(name) for names in tied.values() for name in names}
    part = _part(weights, places)
    given = {plain_name(part + name): tensor for name, tensor in weights.items()}
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
    unused = [name for name in weights if plain_name(part + name) not in places]
    if not loaded:
        raise UserError(_nothing_fits(path, weights, state, other_shape, stays))
    _check_finite(path, loaded, state)
    remarks = [*start.remarks]
    if part:
        remarks.append(f"its names are looked for below {part[:-1]}, where most of them have a place")
    if all(torch.equal(old.to(state[name].dtype), state[name]) for name, old in loaded.items()):
        remarks.append("what is loaded equals a fresh start: it changes nothing")
    model.load_state_dict(loaded, strict=False)
    frozen = [name for name in frozen_names(model, freeze) if name in shareable]
    sha256 = weights_sha256(weights)
    return Transfer(str(path), sha256, [*loaded], new, other_shape, stays, unused, frozen, remarks)


def _check_finite(path: Path, loaded: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise UserError for a value that is not finite, in the file or in the model's type."""
    for name, old in loaded.items():
        if not torch.isfinite(old).all():
            raise UserError(f"init-from {path} is broken: {name} is not finite; give another run")
        if not torch.isfinite(old.to(state[name].dtype)).all():
            kinds = [str(dtype).removeprefix("torch.") for dtype in (old.dtype, state[name].dtype)]
            raise UserError(
                f"init-from {path} has values of {kinds[0]} in {name} that the model's {kinds[1]} cannot "
                "hold; give another run"
            )


def _part(weights: Iterable[str], places: Collection[str]) -> str:
    """Return what to put in front of a file's names: the part of the model that has most of them, or ""."""
    parts = ["", *dict.fromkeys(f"{place.partition('.')[0]}." for place in places if "." in place)]
    found = {part: sum(plain_name(part + name) in places for name in weights) for part in parts}
    return max(found, key=lambda part: (found[part], part == "", part))


def _nothing_fits(
    path: Path, weights: Iterable[str], state: Iterable[str], other_shape: Sequence[str], stays: Sequence[str]
) -> str:
    held, wanted = (", ".join(by_module(names)) or "nothing" for names in (weights, state))
    reasons = {"of another shape": len(other_shape), "that stay with the clients": len(stays)}
    named = [f"{count} {what}" for what, count in reasons.items() if count] or ["none of an equal name"]
    return f"init-from {path} has nothing that fits: it holds {held}, the model {wanted} ({', '.join(named)})"
