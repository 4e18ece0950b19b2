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
from clients.loop import train
from clients.memory import (
    of_personal,
    optimizer_state,
    own_state,
    personal_model,
    restore,
    restore_optimizers,
    shared_model,
)
from clients.rules import RuleAtWork, load_rule
from clients.site import Site
from models.data.dataset import Examples
from models.optimizers import make_optimizers
from models.seeds import derive_seed, generator_for
from models.task import Metrics
from strategies.packing import SUMS
from strategies.rule import PERSONAL, Arrays, Closing, LocalRule, beside


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
    """Train one client from the server's weights; under a personalised strategy, its own model as well."""
    store = LocalState(order.folder, order.client)
    remembered = store.load(order.server_round)
    examples = poison(site, order.client, site.examples(order.client)[0])
    own: dict[str, Tensor] = {}
    personal_losses: dict[str, float] = {}
    # Before the shared one, as the answer holds views of the model that was trained last.
    if personal_rule := load_rule(order.config, "personal-rule"):
        personal_losses, own = _train_personal(site, order, examples, remembered, personal_rule)
    restore(site, shared_model(order.weights, remembered))
    rule = load_rule(order.config, "local-rule")
    lesson = _learn(site, order, examples, remembered, rule)
    metrics = {
        "num-examples": site.task.num_examples(examples),
        **lesson.losses,
        **lesson.closing.metrics,
        **personal_losses,
    }
    answer = make_answer(site, order, site.state, metrics, lesson.closing.beside, rule, remembered)
    own |= {**lesson.kept, **own_state(site, site.state, order.weights), **answer.kept}
    if own or remembered:
        store.save(order.server_round, own, int(str(order.config["checkpoint-round"])))
    return answer


def _train_personal(
    site: Site, order: Order, examples: Examples, remembered: Mapping[str, Tensor], rule: LocalRule
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Train the client's own model on the same rows; return its losses, and what to remember of it.

    Nothing else of it leaves the client. Raises FloatingPointError where it diverges.
    """
    restore(site, personal_model(order.weights, remembered))
    try:
        lesson = _learn(site, order, examples, of_personal(remembered), rule, PERSONAL)
        _check_finite({name: site.state[name].cpu().numpy() for name in site.federated})
    except FloatingPointError as error:
        raise FloatingPointError(f"personal model: {error}") from error
    fixed = order.weights.keys() - set(site.federated)
    kept = {**lesson.kept, **own_state(site, site.state, fixed)}
    losses = {PERSONAL + name: loss for name, loss in lesson.losses.items()}
    # Copies, as the shared model takes its place.
    return losses, {PERSONAL + name: tensor.clone() for name, tensor in kept.items()}


@dataclass(frozen=True)
class _Lesson:
    """What came of training a model, beside its state."""

    losses: dict[str, float]
    closing: Closing
    kept: dict[str, Tensor]
    """What the client is to remember of the rule and the optimizers."""


def _learn(
    site: Site,
    order: Order,
    examples: Examples,
    remembered: Mapping[str, Tensor],
    rule: LocalRule | None,
    whose: str = "",
) -> _Lesson:
    """Train the model that stands ready; `whose` tells its random streams from those of the shared one."""
    config, place = site.config, (order.server_round, order.client)
    optimizers = make_optimizers(site.task, site.model.named_parameters(), config)
    if config.keep_optimizer:
        restore_optimizers(optimizers, remembered)
    at_work = rule and RuleAtWork(
        rule,
        site.model.named_parameters(),
        optimizers,
        order.weights,
        lambda name, weight: remembered.get(name, torch.zeros_like(weight)),
    )
    _seed_layers(derive_seed(config.seed, f"{whose}layers", *place), site.device)
    losses = train(
        site.task,
        site.model,
        examples,
        optimizers,
        generator=generator_for(config.seed, f"{whose}train", *place),
        local_epochs=config.local_epochs,
        batch_size=config.batch_size,
        device=site.device,
        autocast=config.precision == "bfloat16",
    )
    closing, kept = at_work.close() if at_work else (Closing(), {})
    if config.keep_optimizer:
        kept |= optimizer_state(optimizers)
    return _Lesson(losses, closing, kept)


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

    Raises FloatingPointError for a weight that is not finite.
    """
    state = tamper(site, order.client, order.server_round, state, order.weights)
    arrays: Arrays = {name: state[name].cpu().numpy() for name in site.federated}
    for kind, tensors in companions.items():
        arrays = {**arrays, **beside(kind, {name: tensor.cpu().numpy() for name, tensor in tensors.items()})}
    _check_finite(arrays)
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
    """Evaluate the server's weights on the rows that the client kept for it; reply with sums and ratios.

    Under a personalised strategy its own model is evaluated as well, with the same draws.
    """
    # After the round's training, the client's newest state is that of this round.
    remembered = LocalState(order.folder, order.client).load(order.server_round + 1)
    models = {"": shared_model(order.weights, remembered)}
    if "personal-rule" in order.config:
        models[PERSONAL] = personal_model(order.weights, remembered)
    _, examples = site.examples(order.client)
    records = RecordDict({"metrics": MetricRecord({"num-examples": len(examples)})})
    for whose, state in models.items():
        restore(site, state)
        metrics = _evaluate(site, order, examples)
        sums = {name: [float(total), float(weight)] for name, (total, weight) in metrics.items()}
        records[whose + SUMS] = ConfigRecord({**sums})
        for name, ratio in site.task.ratios(metrics).items():
            records.metric_records["metrics"][whose + name] = ratio
    return Answer(records)


def _evaluate(site: Site, order: Order, examples: Examples) -> Metrics:
    """Return the metrics of the model that stands ready; none for a client without rows to evaluate on."""
    site.model.eval()
    generator = generator_for(site.config.seed, "evaluate", order.server_round, order.client)
    with torch.no_grad():
        return site.task.evaluate(site.model, examples, generator) if len(examples) else {}


def _check_finite(arrays: Arrays) -> None:
    """Raise FloatingPointError for what the last step has thrown off; its loss was still fine."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(f"{name} is not finite after training: lower the learning rate")


def _seed_layers(seed: int, device: torch.device) -> None:
    """Seed what layers such as dropout draw from; a task draws from the generator it is given.

    Not torch.manual_seed: it also queues a seeding, with a stack trace, for every kind of accelerator
    that is not there, which takes longer than a step of a small network.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
