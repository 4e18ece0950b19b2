"""What came of a client's training, before anything of it leaves the client."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from clients.state import ModelMemory


@dataclass(frozen=True)
class LocalResult:
    """What came of a client's training; its tensors may be views of the model."""

    state: Mapping[str, Tensor]
    """The whole state of the model."""
    metrics: Mapping[str, float]
    aux: Mapping[str, Mapping[str, Tensor]]
    """What the local rule replies beside the weights: kind -> weight's name -> tensor."""
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    """What the client remembers of its optimizers."""
    rule: Mapping[str, Tensor] = field(default_factory=dict)
    """What it remembers of the local rule."""
    personal: ModelMemory = field(default_factory=ModelMemory)
    """What it remembers of its own model."""
