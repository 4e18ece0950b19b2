"""What one client does with one message: restore, train or evaluate, remember, reply."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from clients.attacks import poison, tamper
from clients.compression import compressed_reply
from clients.local_state import LocalState
from clients.loop import Optimizers, train
from clients.rules import RuleAtWork, load_rule
from clients.site import Site
from models.optimizers import make_optimizers
from models.seeds import derive_seed, generator_for
from strategies.rule import Arrays, Closing, LocalRule, beside

MODEL, OPTIMIZER = "model.", "optimizer."
"""Prefixes of what a client's state file holds."""


@dataclass(frozen=True)
class Order:
    """What the server asks of one client."""

    client: int
    server_round: int
    weights: Mapping[str, Tensor]
    """What the server knows of the model: the federated state to start from, and what it has fixed."""
    config: Mapping[str, object]
    """What the strategy says beside it."""
    folder: Path
    """Where clients keep their state."""


@dataclass(frozen=True)
class Answer:
    """What one client replies."""

    records: RecordDict
    """Its metrics, and its weights where they are compressed."""
    arrays: Arrays | None = None
    """Its weights after training: views of the model, good until the next client restores it."""
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    """What it has to remember of its reply: what compression left out."""


def train_client(site: Site, order: Order) -> Answer:
    """Train one client from the server's weights."""
    config, place = site.config, (order.server_round, order.client)
    store = LocalState(order.folder, order.client)
    remembered = store.load(order.server_round)
    _restore(site, order.weights, remembered)
    optimizers = make_optimizers(site.task, site.model.named_parameters(), config)
    if config.keep_optimizer:
        _restore_optimizers(optimizers, remembered)
    rule = load_rule(order.config)
    at_work = rule and RuleAtWork(
        rule,
        site.model.named_parameters(),
        optimizers,
        order.weights,
        lambda name, weight: remembered.get(name, torch.zeros_like(weight)),
    )

    examples = poison(site, order.client, site.examples(order.client)[0])
    _seed_layers(derive_seed(config.seed, "layers", *place), site.device)
    losses = train(
        site.task,
        site.model,
        examples,
        optimizers,
        generator=generator_for(config.seed, "train", *place),
        local_epochs=config.local_epochs,
        batch_size=config.batch_size,
        device=site.device,
        autocast=config.precision == "bfloat16",
    )
    closing, own = at_work.close() if at_work else (Closing(), {})
    metrics = {"num-examples": site.task.num_examples(examples), **losses, **closing.metrics}
    answer = make_answer(site, order, site.state, metrics, closing.beside, rule, remembered)
    own |= {**own_state(site, site.state, order.weights), **answer.kept}
    if config.keep_optimizer:
        own |= _optimizer_state(optimizers)
    if own or remembered:
        store.save(order.server_round, own, int(str(order.config["checkpoint-round"])))
    return answer


def own_state(site: Site, state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what of a client's state stays with it: the entries that the server's `weights` do not hold.

    What is as it was built, such as frozen weights, need not be kept: it can be built again.
    """
    return {
        MODEL + name: tensor
        for name, tensor in state.items()
        if name not in weights and not torch.equal(tensor, site.initial[name])
    }


def make_answer(
    site: Site,
    order: Order,
    state: Mapping[str, Tensor],
    metrics: Mapping[str, float],
    companions: Mapping[str, Mapping[str, Tensor]],
    rule: LocalRule | None,
    remembered: Mapping[str, Tensor],
) -> Answer:
    """Return what a client replies after training; `companions` go beside the weights, by kind and name.

    The rule has the last word; then the reply is compressed, if it is to be.

    Raises FloatingPointError for a weight that the last step has thrown off; its loss was still fine.
    """
    state = tamper(site, order.client, order.server_round, state, order.weights)
    arrays: Arrays = {name: state[name].cpu().numpy() for name in site.federated}
    for kind, tensors in companions.items():
        arrays = {**arrays, **beside(kind, {name: tensor.cpu().numpy() for name, tensor in tensors.items()})}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(f"{name} is not finite after training: lower the learning rate")
    received = {name: tensor.numpy() for name, tensor in order.weights.items()}
    if rule:
        generator = generator_for(site.config.seed, "reply", order.server_round, order.client)
        arrays, more = rule.reply(arrays, received, generator)
        metrics = {**metrics, **more}
    told = MetricRecord({**metrics})
    if not site.config.compression:
        return Answer(RecordDict({"metrics": told}), arrays)
    generator = generator_for(site.config.seed, "compress", order.server_round, order.client)
    records, left_out = compressed_reply(site.config, arrays, received, remembered, generator)
    return Answer(RecordDict({"metrics": told, **records}), kept=left_out)


def evaluate_client(site: Site, order: Order) -> Answer:
    """Evaluate the server's weights on the rows that the client kept for it; reply with sums and ratios."""
    # After the round's training, the client's newest state is that of this round.
    _restore(site, order.weights, LocalState(order.folder, order.client).load(order.server_round + 1))
    _, examples = site.examples(order.client)
    site.model.eval()
    generator = generator_for(site.config.seed, "evaluate", order.server_round, order.client)
    with torch.no_grad():
        metrics = site.task.evaluate(site.model, examples, generator) if len(examples) else {}
    sums = ConfigRecord({name: [float(total), float(weight)] for name, (total, weight) in metrics.items()})
    ratios = MetricRecord({"num-examples": len(examples), **site.task.ratios(metrics)})
    return Answer(RecordDict({"metrics": ratios, "sums": sums}))


def _seed_layers(seed: int, device: torch.device) -> None:
    """Seed what layers such as dropout draw from; a task draws from the generator it is given.

    Not torch.manual_seed: it also queues a seeding, with a stack trace, for every kind of accelerator
    that is not there, which takes longer than a step of a small network.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _restore(site: Site, weights: Mapping[str, Tensor], remembered: Mapping[str, Tensor]) -> None:
    """Put together the client's model: the server's weights, its memory, and else what it was built with."""
    with torch.no_grad():
        for name, tensor in site.state.items():
            if name in weights:
                tensor.copy_(weights[name])
            else:
                tensor.copy_(remembered.get(MODEL + name, site.initial[name]))


def _optimizer_state(optimizers: Optimizers) -> dict[str, Tensor]:
    return {
        f"{OPTIMIZER}{objective.name}.{index}.{slot}": value
        for objective, optimizer in optimizers
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
        if isinstance(value, Tensor)
    }


def _restore_optimizers(optimizers: Optimizers, remembered: Mapping[str, Tensor]) -> None:
    for objective, optimizer in optimizers:
        saved = optimizer.state_dict()
        prefix = f"{OPTIMIZER}{objective.name}."
        for name, tensor in remembered.items():
            if name.startswith(prefix):
                index, slot = name.removeprefix(prefix).split(".", 1)
                saved["state"].setdefault(int(index), {})[slot] = tensor
        optimizer.load_state_dict(saved)
