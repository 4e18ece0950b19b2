"""Bounding what one client can change (McMahan et al. 2018, arXiv:1710.06963, FlatClip)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from strategies.declaration import Declaration
from strategies.rule import Arrays, LocalRule
from strategies.wire.arrays import to_arrays, to_record
from strategies.wire.train_config import number

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


def bounded(arrays: Arrays, received: Arrays, norm: float) -> Arrays:
    """Return arrays whose update is no longer than a norm: these very ones where it is not.

    Nodes and the server bound updates, and the result must not depend on which of them did: the norm is
    added up in the order of names.
    """
    clipped, shortened = clip({name: arrays[name] for name in sorted(arrays)}, received, norm)
    return {name: clipped[name] for name in arrays} if shortened else arrays


class Clipping(LocalRule):
    """Clips what a client replies, and says so."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self.norm = number(config, NORM)

    def reply(
        self, arrays: Arrays, received: Arrays, generator: torch.Generator
    ) -> tuple[Arrays, dict[str, float]]:
        """Return the clipped weights."""
        clipped, shortened = clip(arrays, received, self.norm)
        return clipped, {CLIENTS: 1.0, CLIPPED: float(shortened)}


class ClippingPlace(Protocol):
    """Who clips the updates of a round."""

    def declare(self, wrapped: Declaration) -> Declaration:
        """Return the declaration of central DP around a strategy with this one."""

    def announce(self, config: ConfigRecord, norm: float) -> None:
        """Tell clients the norm, if they need it."""

    def clipped(self, contents: Sequence[RecordDict], weights: Arrays, norm: float) -> list[RecordDict]:
        """Return replies whose updates are clipped, with the metrics CLIENTS and CLIPPED."""


class OnServer:
    """The server sees every update, and clips it."""

    def declare(self, wrapped: Declaration) -> Declaration:
        """Ask for every single reply."""
        return replace(wrapped.around(), weighted_mean=False)

    def announce(self, config: ConfigRecord, norm: float) -> None:
        """Tell clients nothing."""

    def clipped(self, contents: Sequence[RecordDict], weights: Arrays, norm: float) -> list[RecordDict]:
        """Clip every reply."""
        replies = []
        for content in contents:
            (record,) = content.array_records.values()
            (metrics,) = content.metric_records.values()
            arrays, shortened = clip(to_arrays(record), weights, norm)
            counted = MetricRecord({**metrics, CLIENTS: 1.0, CLIPPED: float(shortened)})
            replies.append(RecordDict({"arrays": to_record(arrays), "metrics": counted}))
        return replies


class OnClients:
    """Clients clip, after whatever the strategy's own rules do; the server sees a node's sum alone."""

    def declare(self, wrapped: Declaration) -> Declaration:
        """Add the rule that clips; sums weight every client alike."""
        return replace(
            wrapped.around(f"{__name__}:Clipping"),
            weighted_mean=True,
            weighted_by=CLIENTS,
            metric_ranges=((CLIENTS, 1.0, 1.0), (CLIPPED, 0.0, 1.0)),
        )

    def announce(self, config: ConfigRecord, norm: float) -> None:
        """Send the norm."""
        config[NORM] = norm

    def clipped(self, contents: Sequence[RecordDict], weights: Arrays, norm: float) -> list[RecordDict]:
        """Return the replies as they are; raise ValueError for one whose client has not clipped it."""
        for content in contents:
            if CLIENTS not in next(iter(content.metric_records.values())):
                raise ValueError(
                    "a client replied without clipping: its ClientApp does not follow local rules"
                )
        return list(contents)
