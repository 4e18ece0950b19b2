"""Means of parts of the model that not every client trains, over those clients alone that do.

A client that does not train a part, such as the encoder of what it has no data of, sends it back as it came.
So the mean over all clients has moved too little: by the share that those who train it have of the weight,
which is the mean of what clients tell of the part. Divided by it, the movement is the mean over those
clients. A strategy that needs no more than the mean sees that one; a strategy that looks at single replies
sees weights that have not moved.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from server.cohort_result import CohortResult
from strategies.rule import TRAINS, Arrays
from strategies.wire.arrays import hold, views
from strategies.wire.reply import ARRAYS, METRICS

LEAST = 1e-9
"""Share of the weight of a round below which nobody counts as training a part."""


@dataclass(frozen=True)
class PartMeans:
    """Which weights are of which part, where the strategy takes the mean of the replies."""

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Part -> its weights; {} leaves every mean as it is."""
    longest: float = math.inf
    """L2 norm of the longest update that a client may send. No mean of them is longer; a client that says
    that it does not train a part, and has moved it all the same, would otherwise make it so."""

    def average_by_part(self, cohort: CohortResult, sent: Arrays) -> None:
        """Let the mean of each part be over the clients that train it, which were `sent` these weights."""
        for reply in cohort.replies if self.names else ():
            if reply.has_content() and ARRAYS in reply.content:  # else it failed, or has evaluated
                self._average(reply, sent)

    def _average(self, reply: Message, sent: Arrays) -> None:
        metrics = reply.content.metric_records[METRICS]
        mean = dict(views(reply.content.array_records[ARRAYS]))
        for part, names in self.names.items():
            # Clients tell 0 or 1; of masked sums only the mean is known, within a rounding.
            share = min(max(float(metrics[TRAINS + part]), 0.0), 1.0)  # type: ignore[arg-type]
            share = share if share > LEAST else 0.0
            if share < 1:
                mean |= self._moved(mean, names, sent, share)
        reply.content[ARRAYS] = hold(mean)

    def _moved(
        self, mean: Arrays, names: Sequence[str], sent: Arrays, share: float
    ) -> dict[str, NDArray[np.float64]]:
        """Return a part of a mean, aux tensors too, as it is over a share of the clients."""

        def grown(change: NDArray[np.float64]) -> NDArray[np.float64]:
            return change / share if share else np.zeros_like(change)

        moved = {name: grown(mean[name] - sent[name].astype(np.float64)) for name in names}
        length = math.sqrt(sum(float(np.vdot(each, each)) for each in moved.values()))
        if length > self.longest:
            moved = {name: each * (self.longest / length) for name, each in moved.items()}
        part = {name: sent[name] + each for name, each in moved.items()}
        beside = {key: array for key, array in mean.items() if "/" in key and key.rpartition("/")[2] in moved}
        return part | {key: grown(array) for key, array in beside.items()}
