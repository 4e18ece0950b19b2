"""Whether what a server sends fits the model and the clients of this node, seen before any of it is used."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clients.belief import MOST, check_rules
from clients.node_config import NodeConfig
from clients.worker import Worker
from models.core.config import require
from models.core.local_work import for_client
from strategies.wire.request import ClientRequest, RoundInfo


def check_message(
    info: RoundInfo, requests: Sequence[ClientRequest], node: NodeConfig, num_clients: int
) -> None:
    """Raise UserError for clients that do not live here, and for rules that this node does not offer."""
    if requests:  # by their numbers
        require(requests[-1].client < num_clients, "clients", f"0 to {num_clients - 1}", requests[-1].client)
    node.check_hosted(request.client for request in requests)
    check_rules((*info.rules, *info.personal_rules), node)


def check_fits(requests: Sequence[ClientRequest], worker: Worker) -> None:
    """Raise ValueError for weights that are not the model's, and UserError for more work than a node does."""
    seen: set[int] = set()
    for request in requests:
        for part in (request.weights, request.config):
            if id(part) in seen:  # clients share most of it
                continue
            seen.add(id(part))
            if part is request.config:
                _check_words(request.config, worker)
            else:
                _check_arrays(request, worker)


def _check_arrays(request: ClientRequest, worker: Worker) -> None:
    names = worker.federated
    if missing := [name for name in names.parameters if name not in request.weights]:
        raise ValueError(f"the server sends a part of the weights, without {missing[0]}")
    # What is no entry of the model is a strategy's own, which nobody here reads but its rule.
    own = {name: tensor for name, tensor in request.weights.items() if name in worker.state}
    _check_entries(own, names.parameters, worker, "a weight that is averaged")
    _check_entries(request.statistics, names.statistics, worker, "a statistic that is averaged")
    _check_entries(request.fixed, worker.frozen, worker, "a weight that is frozen")
    for kind, tensors in request.aux.items():
        for name, tensor in tensors.items():
            if name in worker.state and tensor.shape != worker.state[name].shape:
                raise ValueError(_shapes(f"{kind}/{name}", tensor, worker.state[name]))


def _check_entries(sent: Mapping[str, Tensor], allowed: Sequence[str], worker: Worker, called: str) -> None:
    for name, tensor in sent.items():
        if name not in allowed:
            raise ValueError(f"the server sends {name[:100]}, which is not {called}")
        own = worker.state[name]
        if tensor.shape != own.shape or tensor.dtype != own.dtype:
            raise ValueError(_shapes(name, tensor, own))
        # One pass for a sum; what is finite may still add up to something that is not.
        if not tensor.sum().isfinite() and not torch.isfinite(tensor).all():
            raise ValueError(f"the server sends {name[:100]}, which is not finite")


def _shapes(name: str, tensor: Tensor, own: Tensor) -> str:
    given, wanted = ([str(each.dtype).removeprefix("torch."), [*each.shape]] for each in (tensor, own))
    return (
        f"the server sends {name[:100]} as {given[0]} {given[1]}, and the model has {wanted[0]} {wanted[1]}"
    )


def _check_words(words: Mapping[str, object], worker: Worker) -> None:
    config, local_epochs = for_client(worker.config, words)
    if config is not worker.config:
        require(
            local_epochs <= MOST["local_epochs"], "local-epochs", f"<= {MOST['local_epochs']}", local_epochs
        )
        require(
            config.batch_size <= MOST["batch_size"],
            "batch-size",
            f"<= {MOST['batch_size']}",
            config.batch_size,
        )
