"""Updates of clients that have begun, until they count, and the weights that they began with.

FedBuff (Nguyen et al. 2022, arXiv:2106.06639, algorithm 1 and section 5.2): an update that was made from an
older model is applied to the newest, scaled by 1 / (1 + staleness) ** exponent.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flwr.app import Message, MetricRecord, RecordDict
from torch import Tensor

from strategies.rule import Arrays
from strategies.wire.arrays import hold, tensor_view, views
from strategies.wire.reply import METRICS
from strategies.wire.reply_metrics import metrics_of

BEGAN, UPDATE, TOLD = "began/", "update/", "told/"
"""Prefixes of tensors: weights that clients began with, by round, and what they reply, by client."""
PLACE = re.compile(r"(began|update)/(\d+)/(.*)", re.DOTALL)


@dataclass(frozen=True)
class Update:
    """What one client has trained."""

    server_round: int
    """The round whose weights it began with."""
    key: str
    """The key of its arrays."""
    arrays: Arrays
    """Its weights."""
    metrics: Mapping[str, Any]

    def applied(self, began: Arrays, weights: Arrays, scale: float) -> RecordDict:
        """Return a reply of the newest weights and the scaled update, in the types of the update."""
        moved = {
            # In the model's order, in which a strategy may count them; a file of tensors has another.
            name: _moved(weight, self.arrays[name], began[name], scale)
            for name, weight in weights.items()
        }
        return self.reply(moved)

    def reply(self, arrays: Arrays) -> RecordDict:
        """Return a reply of these arrays."""
        return RecordDict({self.key: hold(arrays), METRICS: MetricRecord({**self.metrics})})


class UpdateBuffer:
    """Updates by client, and the weights of the rounds that they began in."""

    def __init__(self, exponent: float) -> None:
        """Take the exponent of the staleness."""
        self.exponent = exponent
        self.updates: dict[int, Update] = {}
        self.began: dict[int, Arrays] = {}

    def put(self, server_round: int, replies: Iterable[Message], weights: Arrays) -> None:
        """Keep what clients have replied to a round that began with these weights."""
        for reply in replies:
            if not reply.has_content():
                continue
            ((key, arrays),) = reply.content.array_records.items()
            client = reply.metadata.src_node_id
            self.updates[client] = Update(server_round, key, views(arrays), {**metrics_of(reply.content)})
            self.began[server_round] = weights

    def take(
        self,
        clients: Iterable[int],
        server_round: int,
        weights: Arrays,
        under_way: Collection[int] = (),
    ) -> list[tuple[int, RecordDict]]:
        """Return the replies of those of these clients that have any, with the client, and keep them no more.

        `weights` are those that the round begins with; they are what updates of older rounds are applied to.
        What began in the rounds `under_way` is not here yet, and will be.
        """
        found: list[tuple[int, RecordDict]] = []
        for client in clients:
            update = self.updates.pop(client, None)
            if update is None:
                continue
            if update.server_round == server_round:
                found.append((client, update.reply(update.arrays)))
                continue
            scale = (1.0 + server_round - update.server_round) ** -self.exponent
            found.append((client, update.applied(self.began[update.server_round], weights, scale)))
        self.trim(under_way)
        return found

    def trim(self, under_way: Collection[int] = ()) -> None:
        """Keep no weights but those that updates here, or still `under_way`, began with."""
        needed = {update.server_round for update in self.updates.values()} | {*under_way}
        self.began = {number: each for number, each in self.began.items() if number in needed}

    def own(self) -> None:
        """Hold copies: what waits is not to keep the messages alive that it came in."""
        for client, update in self.updates.items():
            arrays = {name: array.copy() for name, array in update.arrays.items() if array.base is not None}
            self.updates[client] = replace(update, arrays={**update.arrays, **arrays})

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it, as a checkpoint holds it."""
        found = {
            f"{BEGAN}{number}/{name}": _tensor_of(array)
            for number, arrays in self.began.items()
            for name, array in arrays.items()
        }
        for client, update in self.updates.items():
            told = [update.server_round, update.key, dict(update.metrics)]
            found[f"{TOLD}{client}"] = torch.frombuffer(
                bytearray(json.dumps(told).encode()), dtype=torch.uint8
            )
            for name, array in update.arrays.items():
                found[f"{UPDATE}{client}/{name}"] = _tensor_of(array)
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        arrays: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        for path, tensor in tensors.items():
            if place := PLACE.fullmatch(path):
                kind, number, name = place.groups()
                arrays.setdefault((kind, int(number)), {})[name] = tensor.numpy()
        self.began = {number: each for (kind, number), each in arrays.items() if kind == "began"}
        self.updates = {}
        for path, tensor in tensors.items():
            if path.startswith(TOLD):
                client = int(path.removeprefix(TOLD))
                server_round, key, metrics = json.loads(tensor.numpy().tobytes())
                self.updates[client] = Update(server_round, key, arrays["update", client], metrics)
        lacking = {update.server_round for update in self.updates.values()} - self.began.keys()
        if lacking:
            raise ValueError(f"it lacks the weights of rounds {sorted(lacking)}, which clients began with")


def _tensor_of(array: np.ndarray) -> Tensor:
    """Return a copy of its own: a file of tensors refuses those that share memory, as rounds may."""
    return tensor_view(np.array(array, order="C"))


def _moved(weight: np.ndarray, trained: np.ndarray, began: np.ndarray, scale: float) -> np.ndarray:
    """Return `weight` plus the scaled difference, in float64, rounded once to the update's type."""
    update = trained.astype(np.float64) - began.astype(np.float64)
    return (weight.astype(np.float64) + scale * update).astype(trained.dtype)
