"""Parts of the model that not every client trains, such as the encoder of what a client has no data of.

A client tells which parts it trains (1) or not (0), as metrics; one that it does not train leaves it as it
came, whatever an optimizer or a rule has done to it meanwhile.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from clients.local_result import LocalResult
from clients.worker import Worker
from models.data.dataset import Examples
from models.task import Task
from strategies.rule import TRAINS
from strategies.wire.request import ClientRequest


def trained_parts(task: Task, examples: Examples) -> dict[str, float]:
    """Return what a client with these examples tells of each part; raise ValueError for one there is not."""
    trained = set(task.trained_parts(examples))
    if strange := trained.difference(task.parts):
        raise ValueError(
            f"trained_parts must return some of {', '.join(task.parts) or 'no parts'}, got {strange}"
        )
    return {TRAINS + part: float(part in trained) for part in task.parts}


def left_as_sent(worker: Worker, request: ClientRequest, result: LocalResult) -> LocalResult:
    """Return the result with the weights of untrained parts as they were sent, and nothing kept for them.

    What a rule replies beside such a weight is zero: no change, no direction.
    """
    untrained = {
        name for part, names in worker.parts.items() if not result.metrics[TRAINS + part] for name in names
    }
    if not untrained:
        return result
    aux: Mapping[str, Mapping[str, Tensor]] = {
        kind: {
            name: torch.zeros_like(tensor) if name in untrained else tensor
            for name, tensor in tensors.items()
        }
        for kind, tensors in result.aux.items()
    }
    return replace(
        result,
        state={**result.state, **{name: request.weights[name] for name in untrained}},
        aux=aux,
        rule={key: each for key, each in result.rule.items() if key.rpartition("/")[2] not in untrained},
    )
