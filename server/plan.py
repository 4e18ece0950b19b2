"""Everything that a mistake in the run config could break, built before anybody has to wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from logging import WARNING

import torch
from flwr.serverapp.strategy import Strategy
from torch import nn

from models.core.config import RunConfig, TaskConfig, read, require
from models.core.device import choose_device
from models.core.log import log
from models.data.attackers import attackers, check_attack
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.partition import Partition, make_partition
from models.engine import EngineChoice, choose_engine
from models.optimizers import make_optimizers
from models.registry import load_task
from models.state import build_model, federated_names, model_state
from models.task import Task
from server.callbacks.build import make_guests
from server.callbacks.callback import Callback
from server.config import ServerConfig
from server.rehearsal import rehearse
from server.reply_checks import Expected
from server.requests import Requests
from server.starting_point import starting_point
from server.strategy import (
    check_compression,
    check_engine,
    check_memory,
    check_optimizers,
    check_statistics,
    check_weighting,
    load_strategy,
    rules_of,
    tell_what_clients_remember,
)
from server.transfer import Transfer, take_over
from strategies.declaration import chain_of, declaration_of, weight_keys
from strategies.rule import RECEIVED
from strategies.wire.form import ARRAYS


@dataclass(frozen=True)
class Plan:
    """What a run config asks for."""

    config: ServerConfig
    task_config: TaskConfig
    dataset: Dataset
    task: Task
    model: nn.Module
    """Freshly initialised from the run's seed, and from what the run begins with."""
    strategy: Strategy
    partition: Partition
    transfer: Transfer | None
    """What was taken over from an earlier run."""
    engine: EngineChoice
    """How clients are trained."""
    guests: Sequence[Callback]
    """Trackers, and the user's callbacks."""


def make_plan(run_config: RunConfig) -> Plan:
    """Read the run config and build what it names.

    Raises UserError for the first thing in it that cannot work.
    """
    config, task_config = read(ServerConfig, run_config), read(TaskConfig, run_config)
    can_evaluate = config.fraction_evaluate == 0 or task_config.local_test_fraction > 0
    require(
        can_evaluate, "local-test-fraction", "> 0 when fraction-evaluate is", task_config.local_test_fraction
    )
    choose_device(task_config.device, torch.cuda.device_count(), granted=None)
    guests = make_guests(config)
    strategy = load_strategy(config, task_config.num_clients)
    check_engine(strategy, config.strategy, task_config.engine)
    check_compression(strategy, task_config.compression)
    if config.checkpoint_every:
        check_memory(strategy)
    dataset = load_dataset(task_config)
    check_attack(task_config, dataset)
    task = load_task(task_config, dataset)
    model = build_model(task, task_config.seed)
    statistics = federated_names(model, task).statistics
    check_statistics(strategy, statistics)
    if statistics and attackers(task_config):
        log(WARNING, "Attacks and robust strategies concern parameters; statistics are averaged beside them")
    tell_what_clients_remember(strategy, task_config, task, model)
    # Their options are checked by making them.
    optimizers = make_optimizers(task, model.named_parameters(), task_config)
    check_optimizers(strategy, (optimizer for _, optimizer in optimizers))
    check_weighting(strategy, (objective.name for objective in task.objectives))
    deal = make_partition(dataset, task_config)
    personal = bool(declaration_of(strategy).personal_rules)
    engine = choose_engine(task_config, task, model, dataset.train, personal=personal)
    transfer = take_over(starting_point(config), model, task.local, task.freeze) if config.init_from else None
    plan = Plan(config, task_config, dataset, task, model, strategy, deal, transfer, engine, guests)
    state = model_state(model)
    weights = {name: state[name] for name in federated_names(model, task).parameters}
    rehearse(strategy, weights, requests_of(plan))
    return plan


def requests_of(plan: Plan) -> Requests:
    """Return the reader of what the strategy asks of clients."""
    *_, innermost = chain_of(plan.strategy)
    return Requests(
        type(plan.strategy).__name__,
        federated_names(plan.model, plan.task).parameters,
        plan.task_config.num_clients,
        rules_of(plan.strategy),
        getattr(innermost, "arrayrecord_key", ARRAYS),
    )


def expected_of(plan: Plan) -> Expected:
    """Return what clients must tell, as the strategy computes with it."""
    received = declaration_of(plan.strategy).received_losses
    losses = [RECEIVED + objective.name for objective in plan.task.objectives] if received else []
    return Expected(weight_keys(plan.strategy), losses, plan.task.ratios)
