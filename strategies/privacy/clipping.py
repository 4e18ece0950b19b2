"""Bounding what one client can change (McMahan et al. 2018, arXiv:1710.06963, FlatClip)."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from strategies.rule import Arrays, LocalRule

CLIENTS, CLIPPED = "clients", "clipped"
"""Metrics of a clipped reply: how many clients it stands for, and the share of them that were clipped."""
NORM = "clipping-norm"
"""Where clients find the norm among what the strategy says."""


def clip(arrays: Arrays, received: Arrays, norm: float) -> tuple[Arrays, bool]:
    """Shorten the update from `received` to `arrays` to L2 norm `norm`; tell whether it was longer.

    The norm is that of all arrays together. A shorter update keeps every bit. One that is not finite, which
    nothing could shorten, becomes none. Raises ValueError for arrays that were not received.
    """
    unknown = sorted(arrays.keys() - received.keys())
    if unknown:
        raise ValueError(f"only weights can be clipped, and {unknown[0]} stands beside them")
    updates = {name: np.subtract(array, received[name], dtype=np.float64) for name, array in arrays.items()}
    length = math.sqrt(sum(float(np.square(update).sum()) for update in updates.values()))
    if length <= norm:
        return arrays, False
    scale = norm / length if math.isfinite(length) else 0.0
    shortened = {
        name: np.asarray(received[name] + (scale * update if scale else 0.0), arrays[name].dtype)
        for name, update in updates.items()
    }
    return shortened, True


class Clipping(LocalRule):
    """Clips what a client replies, and says so."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self.norm = float(config[NORM])  # type: ignore[arg-type]

    def reply(
        self, arrays: Arrays, received: Arrays, generator: torch.Generator
    ) -> tuple[Arrays, dict[str, float]]:
        """Return the clipped weights."""
        clipped, shortened = clip(arrays, received, self.norm)
        return clipped, {CLIENTS: 1.0, CLIPPED: float(shortened)}
