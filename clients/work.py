"""What one client does with one message: restore, train or evaluate, remember, reply."""

from collections.abc import Mapping
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from clients.local_state import LocalState
from clients.loop import Optimizers, train
from clients.site import Site
from models.optimizers import make_optimizers
from models.plugins import find
from models.seeds import derive_seed, generator_for
from models.task import is_federated
from strategies.rule import install

MODEL, OPTIMIZER = "model.", "optimizer."
"""Prefixes of what a client's state file holds."""


def train_client(site: Site, client: int, content: RecordDict, folder: Path) -> RecordDict:
    """Train one client from the server's arrays; return its arrays and metrics."""
    config, order = site.config, _config_of(content)
    server_round = int(order["server-round"])  # type: ignore[call-overload]
    store = LocalState(folder, client)
    remembered = store.load(server_round)
    _restore(site, content, remembered)
    optimizers = make_optimizers(site.task, site.model, config)
    if config.keep_optimizer:
        _restore_optimizers(optimizers, remembered)
    _install_rule(str(order.get("local-rule", "")), order, optimizers)

    examples, _ = site.examples(client)
    # A task draws from the generator; layers such as dropout can only draw from torch's own.
    torch.manual_seed(derive_seed(config.seed, "layers", server_round, client))
    losses = train(
        site.task,
        site.model,
        examples,
        optimizers,
        generator=generator_for(config.seed, "train", server_round, client),
        local_epochs=config.local_epochs,
        batch_size=config.batch_size,
        device=site.device,
        autocast=config.precision == "bfloat16",
    )
    if keep := _to_remember(site, optimizers):
        store.save(server_round, keep, int(order["checkpoint-round"]))  # type: ignore[call-overload]
    arrays = {
        name: tensor for name, tensor in site.model.state_dict().items() if _federated(site, name, tensor)
    }
    metrics = MetricRecord({"num-examples": len(examples), **losses})
    return RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})


def evaluate_client(site: Site, client: int, content: RecordDict, folder: Path) -> RecordDict:
    """Evaluate the server's arrays on the rows that the client kept for it; return sums and ratios."""
    order = _config_of(content)
    # After the round's training, the client's newest state is that of this round.
    after_round = int(order["server-round"]) + 1  # type: ignore[call-overload]
    _restore(site, content, LocalState(folder, client).load(after_round))
    _, examples = site.examples(client)
    site.model.eval()
    with torch.no_grad():
        metrics = site.task.evaluate(site.model, examples) if len(examples) else {}
    sums = ConfigRecord({name: [float(total), float(weight)] for name, (total, weight) in metrics.items()})
    return RecordDict(
        {
            "metrics": MetricRecord({"num-examples": len(examples), **site.task.ratios(metrics)}),
            "sums": sums,
        }
    )


def _config_of(content: RecordDict) -> Mapping[str, object]:
    (config,) = content.config_records.values()
    return config


def _federated(site: Site, name: str, tensor: Tensor) -> bool:
    return is_federated(name, tensor, site.task.local)


def _restore(site: Site, content: RecordDict, remembered: Mapping[str, Tensor]) -> None:
    """Put together the client's model: freshly built, overlaid with its memory, then the server's arrays."""
    (arrays,) = content.array_records.values()
    state = dict(site.initial)
    state |= {
        name.removeprefix(MODEL): tensor for name, tensor in remembered.items() if name.startswith(MODEL)
    }
    state |= {name: torch.from_numpy(array.numpy()) for name, array in arrays.items()}
    site.model.load_state_dict(state)


def _to_remember(site: Site, optimizers: Optimizers) -> dict[str, Tensor]:
    """Return what stays with the client: its local and integer state, and its optimizers if asked."""
    state = site.model.state_dict()
    keep = {MODEL + name: tensor for name, tensor in state.items() if not _federated(site, name, tensor)}
    if site.config.keep_optimizer:
        for objective, optimizer in optimizers:
            for index, slots in optimizer.state_dict()["state"].items():
                for slot, value in slots.items():
                    if isinstance(value, Tensor):
                        keep[f"{OPTIMIZER}{objective.name}.{index}.{slot}"] = value
    return keep


def _restore_optimizers(optimizers: Optimizers, remembered: Mapping[str, Tensor]) -> None:
    for objective, optimizer in optimizers:
        saved = optimizer.state_dict()
        prefix = f"{OPTIMIZER}{objective.name}."
        for name, tensor in remembered.items():
            if name.startswith(prefix):
                index, slot = name.removeprefix(prefix).split(".", 1)
                saved["state"].setdefault(int(index), {})[slot] = tensor
        optimizer.load_state_dict(saved)


def _install_rule(name: str, order: Mapping[str, object], optimizers: Optimizers) -> None:
    if not name:
        return
    rule = find(name, "local rule", {}, "polyfed.rules")(order)
    for _, optimizer in optimizers:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        install(rule, optimizer, {weight: weight.detach().clone() for weight in weights})
