"""What one client does when it is asked to train: restore, train, reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clients.attacks import poison
from clients.deadline import NEVER, Deadline, take_turns
from clients.local_result import LocalResult
from clients.loop import train_epochs
from clients.parts import trained_parts
from clients.reply import check_finite, send_reply
from clients.rules import RuleAtWork, load_rules
from clients.state import (
    ClientStates,
    ModelMemory,
    optimizer_state,
    own_state,
    personal_model,
    restore_optimizers,
    shared_model,
)
from clients.transfer import at_hand
from clients.worker import Worker
from models.core.local_work import for_client
from models.core.seeds import generator_for, seed_torch
from models.data.dataset import Examples
from models.optimizers import make_optimizers
from strategies.rule import PERSONAL, LocalRule, RuleResult
from strategies.wire.reply import NodeReply
from strategies.wire.request import ClientRequest


def train_one_by_one(
    worker: Worker,
    requests: Sequence[ClientRequest],
    states: ClientStates,
    reply: NodeReply,
    deadline: Deadline = NEVER,
) -> None:
    """Train client after client."""
    take_turns(
        requests,
        deadline,
        reply,
        lambda request, turn: train_client(worker.of(request.client), request, states, reply, turn),
    )


def train_client(
    worker: Worker,
    request: ClientRequest,
    states: ClientStates,
    reply: NodeReply,
    deadline: Deadline = NEVER,
) -> None:
    """Train one client from the server's weights; under a personalised strategy, its own model as well."""
    state = states.load(request.client, before=request.info.server_round)
    own = poison(worker, request.client, worker.examples(request.client)[0])
    num_examples = worker.num_examples(own)
    examples = at_hand(worker.task, own, worker.device)
    personal = _Personal()
    # Before the shared model, whose weights the reply takes from where they were trained.
    if request.info.personal_rules:
        personal = _train_personal(worker, request, examples, state.personal, deadline)
    received, start = {}, shared_model(request.given, state.shared)
    if request.info.received_losses:
        received = worker.received_losses(
            request.info.server_round, request.client, start, examples, deadline
        )
    worker.put(start)
    rules = load_rules(request.info.rules, request.config)
    trained = _train(worker, request, examples, state.shared, rules, deadline)
    metrics = {
        "num-examples": num_examples,
        **trained_parts(worker.task, own),
        **trained.losses,
        **trained.rule_result.metrics,
        **personal.losses,
        **received,
    }
    result = LocalResult(
        state=worker.state,
        metrics=metrics,
        aux=trained.rule_result.aux,
        optimizer=trained.optimizer,
        rule=trained.rule,
        personal=personal.memory,
    )
    send_reply(worker, request, result, rules, state, states, reply)


@dataclass(frozen=True)
class _Trained:
    """What came of training the model that stands ready, beside its state."""

    losses: dict[str, float]
    rule_result: RuleResult
    optimizer: dict[str, Tensor]
    """What the client is to remember of the optimizers."""
    rule: dict[str, Tensor]
    """What it is to remember of the local rule."""


@dataclass(frozen=True)
class _Personal:
    """What came of training a personal model."""

    losses: Mapping[str, float] = field(default_factory=dict)
    memory: ModelMemory = field(default_factory=ModelMemory)


def _train_personal(
    worker: Worker, request: ClientRequest, examples: Examples, remembered: ModelMemory, deadline: Deadline
) -> _Personal:
    """Train the client's own model on the same examples; return its losses, and what to remember of it.

    Nothing else of it leaves the client. Raises FloatingPointError where it diverges.
    """
    rules = load_rules(request.info.personal_rules, request.config)
    worker.put(personal_model(request.given, remembered))
    try:
        trained = _train(worker, request, examples, remembered, rules, deadline, PERSONAL)
        check_finite({name: worker.state[name].cpu().numpy() for name in worker.federated.all})
    except FloatingPointError as error:
        raise FloatingPointError(f"personal model: {error}") from error
    kept = own_state(worker.state, worker.initial, request.fixed.keys(), worker.federated.all)
    memory = ModelMemory(kept, trained.optimizer, trained.rule)
    losses = {PERSONAL + name: loss for name, loss in trained.losses.items()}
    return _Personal(losses, memory.cloned())  # copies, as the shared model takes its place


def _train(
    worker: Worker,
    request: ClientRequest,
    examples: Examples,
    remembered: ModelMemory,
    rules: Sequence[LocalRule],
    deadline: Deadline,
    prefix: str = "",
) -> _Trained:
    """Train the model that stands ready; `prefix` tells its random streams from those of the shared one."""
    config, local_epochs = for_client(worker.config, request.config)
    place = request.info.server_round, request.client
    if config is worker.config:
        optimizers = worker.make_optimizers()
    else:
        optimizers = make_optimizers(worker.task, worker.parameters.items(), config)
    if config.keep_optimizer:
        restore_optimizers(optimizers, remembered.optimizer)
    at_work = None
    if rules:
        at_work = RuleAtWork(
            rules,
            worker.parameters.items(),
            optimizers,
            request,
            lambda name, weight: remembered.rule.get(name, torch.zeros_like(weight)),
        )
    # What layers such as dropout draw from; a task draws from the generator it is given.
    seed_torch(worker.device, config.seed, f"{prefix}layers", *place)
    losses = train_epochs(
        worker.task,
        worker.model,
        examples,
        optimizers,
        generator=generator_for(config.seed, f"{prefix}train", *place),
        local_epochs=local_epochs,
        batch_size=config.batch_size,
        device=worker.device,
        autocast=config.precision == "bfloat16",
        deadline=deadline,
    )
    rule_result, kept = at_work.close() if at_work else (RuleResult(), {})
    return _Trained(losses, rule_result, optimizer_state(optimizers) if config.keep_optimizer else {}, kept)
