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
from clients.worker import Worker
from models.core.seeds import derive_seed, generator_for
from models.data.dataset import Examples
from models.optimizers import make_optimizers
from models.task import Metrics
from strategies.rule import PERSONAL, Arrays, Closing, LocalRule, beside
from strategies.wire.packing import SUMS


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


def train_client(worker: Worker, order: Order) -> Answer:
    """Train one client from the server's weights; under a personalised strategy, its own model as well."""
    store = LocalState(order.folder, order.client)
    remembered = store.load(order.server_round)
    examples = poison(worker, order.client, worker.examples(order.client)[0])
    own: dict[str, Tensor] = {}
    personal_losses: dict[str, float] = {}
    # Before the shared one, as the answer holds views of the model that was trained last.
    if personal_rule := load_rule(order.config, "personal-rule"):
        personal_losses, own = _train_personal(worker, order, examples, remembered, personal_rule)
    restore(worker, shared_model(order.weights, remembered))
    rule = load_rule(order.config, "local-rule")
    lesson = _learn(worker, order, examples, remembered, rule)
    metrics = {
        "num-examples": worker.task.num_examples(examples),
        **lesson.losses,
        **lesson.closing.metrics,
        **personal_losses,
    }
    answer = make_answer(worker, order, worker.state, metrics, lesson.closing.beside, rule, remembered)
    own |= {**lesson.kept, **own_state(worker, worker.state, order.weights), **answer.kept}
    if own or remembered:
        store.save(order.server_round, own, int(str(order.config["checkpoint-round"])))
    return answer


def _train_personal(
    worker: Worker, order: Order, examples: Examples, remembered: Mapping[str, Tensor], rule: LocalRule
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Train the client's own model on the same rows; return its losses, and what to remember of it.

    Nothing else of it leaves the client. Raises FloatingPointError where it diverges.
    """
    restore(worker, personal_model(order.weights, remembered))
    try:
        lesson = _learn(worker, order, examples, of_personal(remembered), rule, PERSONAL)
        _check_finite({name: worker.state[name].cpu().numpy() for name in worker.federated})
    except FloatingPointError as error:
        raise FloatingPointError(f"personal model: {error}") from error
    fixed = order.weights.keys() - set(worker.federated)
    kept = {**lesson.kept, **own_state(worker, worker.state, fixed)}
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
    worker: Worker,
    order: Order,
    examples: Examples,
    remembered: Mapping[str, Tensor],
    rule: LocalRule | None,
    whose: str = "",
) -> _Lesson:
    """Train the model that stands ready; `whose` tells its random streams from those of the shared one."""
    config, place = worker.config, (order.server_round, order.client)
    optimizers = make_optimizers(worker.task, worker.model.named_parameters(), config)
    if config.keep_optimizer:
        restore_optimizers(optimizers, remembered)
    at_work = rule and RuleAtWork(
        rule,
        worker.model.named_parameters(),
        optimizers,
        order.weights,
        lambda name, weight: remembered.get(name, torch.zeros_like(weight)),
    )
    _seed_layers(derive_seed(config.seed, f"{whose}layers", *place), worker.device)
    losses = train(
        worker.task,
        worker.model,
        examples,
        optimizers,
        generator=generator_for(config.seed, f"{whose}train", *place),
        local_epochs=config.local_epochs,
        batch_size=config.batch_size,
        device=worker.device,
        autocast=config.precision == "bfloat16",
    )
    closing, kept = at_work.close() if at_work else (Closing(), {})
    if config.keep_optimizer:
        kept |= optimizer_state(optimizers)
    return _Lesson(losses, closing, kept)


def make_answer(
    worker: Worker,
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
    state = tamper(worker, order.client, order.server_round, state, order.weights)
    arrays: Arrays = {name: state[name].cpu().numpy() for name in worker.federated}
    for kind, tensors in companions.items():
        arrays = {**arrays, **beside(kind, {name: tensor.cpu().numpy() for name, tensor in tensors.items()})}
    _check_finite(arrays)
    received = {name: tensor.numpy() for name, tensor in order.weights.items()}
    if rule:
        generator = generator_for(worker.config.seed, "reply", order.server_round, order.client)
        arrays, more = rule.reply(arrays, received, generator)
        metrics = {**metrics, **more}
    told = MetricRecord({**metrics})
    if not worker.config.compression:
        return Answer(RecordDict({"metrics": told}), arrays)
    generator = generator_for(worker.config.seed, "compress", order.server_round, order.client)
    records, left_out = compressed_reply(worker.config, arrays, received, remembered, generator)
    return Answer(RecordDict({"metrics": told, **records}), kept=left_out)


def evaluate_client(worker: Worker, order: Order) -> Answer:
    """Evaluate the server's weights on the rows that the client kept for it; reply with sums and ratios.

    Under a personalised strategy its own model is evaluated as well, with the same draws.
    """
    # After the round's training, the client's newest state is that of this round.
    remembered = LocalState(order.folder, order.client).load(order.server_round + 1)
    models = {"": shared_model(order.weights, remembered)}
    if "personal-rule" in order.config:
        models[PERSONAL] = personal_model(order.weights, remembered)
    _, examples = worker.examples(order.client)
    records = RecordDict({"metrics": MetricRecord({"num-examples": len(examples)})})
    for whose, state in models.items():
        restore(worker, state)
        metrics = _evaluate(worker, order, examples)
        sums = {name: [float(total), float(weight)] for name, (total, weight) in metrics.items()}
        records[whose + SUMS] = ConfigRecord({**sums})
        for name, ratio in worker.task.ratios(metrics).items():
            records.metric_records["metrics"][whose + name] = ratio
    return Answer(records)


def _evaluate(worker: Worker, order: Order, examples: Examples) -> Metrics:
    """Return the metrics of the model that stands ready; none for a client without rows to evaluate on."""
    worker.model.eval()
    generator = generator_for(worker.config.seed, "evaluate", order.server_round, order.client)
    with torch.no_grad():
        return worker.task.evaluate(worker.model, examples, generator) if len(examples) else {}


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
