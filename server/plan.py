"""Everything that a mistake in the run config could break, built before anybody has to wait."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from logging import WARNING
from typing import Any

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy
from torch import nn

from models.core.config import RunConfig, TaskConfig, read, require
from models.core.device import choose_device
from models.core.errors import UserError
from models.core.log import log
from models.data.attackers import attackers, check_attack, check_label_flip
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.partition import Partition, make_partition, split_local_test
from models.engine import EngineChoice, choose_engine
from models.optimizers import make_optimizers
from models.registry import load_task
from models.state import build_model, federated_names, model_state, part_names
from models.task import Task
from server.asynchronous_rounds import SimulatedArrivals
from server.callbacks.build import make_guests
from server.callbacks.callback import Callback
from server.client_profiles import KEPT, profiles_of
from server.config import ServerConfig
from server.mean import takes_the_mean
from server.metric_checks import Expected
from server.pace import Pace, TimedRounds
from server.part_means import PartMeans
from server.real_arrivals import RealArrivals
from server.rehearsal import rehearse
from server.requests import Requests
from server.secure_options import check_secure
from server.simulated_time import Schedule
from server.starting_point import starting_point
from server.strategy import (
    check_asynchronous,
    check_compression,
    check_engine,
    check_max_update_norm,
    check_memory,
    check_optimizers,
    check_parts,
    check_statistics,
    check_weighting,
    cohort_size,
    load_strategy,
    may_reply_aux,
    rules_of,
    tell_what_clients_remember,
)
from server.transfer import Transfer, take_over
from strategies.declaration import chain_of, declaration_of, weight_keys
from strategies.rule import PERSONAL, RECEIVED, TRAINS
from strategies.wire.form import ARRAYS
from strategies.wire.reply_metrics import NUM_EXAMPLES

IN_SIMULATION = "1 in a simulation, where everybody answers: it is for real nodes"


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
    real_nodes: bool = False
    """Whether clients live on machines of their own, on which time passes by itself."""


def make_plan(run_config: RunConfig, *, real_nodes: bool = False) -> Plan:
    """Read the run config and build what it names.

    Raises UserError for the first thing in it that cannot work.
    """
    config, task_config = read(ServerConfig, run_config), read(TaskConfig, run_config)
    if real_nodes and (config.client_speeds or config.availability):
        raise UserError(
            "client-speeds and availability are of simulated clients, and these nodes are real: leave them "
            "out (buffer-size works without them)"
        )
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
    check_label_flip(task_config, task, model)
    federated = federated_names(model, task)
    statistics = federated.statistics
    part_names(task, federated)  # which are checked by naming them
    check_statistics(strategy, statistics)
    check_max_update_norm(strategy, statistics, task_config.max_update_norm)
    check_parts(strategy, task.parts, config, task_config.num_clients)
    if config.buffer_size:
        check_asynchronous(strategy, statistics)
    if config.secure_aggregation:
        check_secure(strategy, config, task_config)
    most = f"at most num-clients ({task_config.num_clients})"
    require(config.expected_nodes <= task_config.num_clients, "expected-nodes", most, config.expected_nodes)
    require(config.oversample == 1 or real_nodes, "oversample", IN_SIMULATION, config.oversample)
    if statistics and attackers(task_config):
        log(WARNING, "Attacks and robust strategies concern parameters; statistics are averaged beside them")
    tell_what_clients_remember(strategy, task_config, task, model, away=bool(config.availability))
    # Their options are checked by making them.
    optimizers = make_optimizers(task, model.named_parameters(), task_config)
    check_optimizers(strategy, (optimizer for _, optimizer in optimizers))
    of_parts = (TRAINS + part for part in task.parts)
    check_weighting(strategy, (objective.name for objective in task.objectives), of_parts)
    deal = make_partition(dataset, task_config)
    personal = bool(declaration_of(strategy).personal_rules)
    engine = choose_engine(task_config, task, model, dataset.train, personal=personal)
    transfer = take_over(starting_point(config), model, task.local, task.freeze) if config.init_from else None
    plan = Plan(
        config, task_config, dataset, task, model, strategy, deal, transfer, engine, guests, real_nodes
    )
    pace_of(plan)  # its options are checked by making it
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


def pace_of(plan: Plan) -> Pace:
    """Return when clients begin and arrive, at the start of the run."""
    config, seed, clients = plan.config, plan.task_config.seed, plan.task_config.num_clients
    declaration, cohort = declaration_of(plan.strategy), cohort_size(config, clients)
    weighted_by = declaration.weighted_by if declaration.weighted_mean else ""
    buffer = config.buffer_size, config.staleness_exponent, weighted_by, mean_types_of(plan)
    if plan.real_nodes:
        return RealArrivals(seed, cohort, clients, *buffer) if config.buffer_size else Pace()
    profiles = profiles_of(config, seed, clients, lru_cache(KEPT)(partial(_work_of, plan)))
    if profiles is None:
        return Pace()
    schedule = Schedule(profiles, seed, cohort)
    return SimulatedArrivals(schedule, *buffer) if config.buffer_size else TimedRounds(schedule)


def mean_types_of(plan: Plan) -> dict[str, np.dtype[Any]] | None:
    """Return the types of the weights, where the mean of the replies is to be the new ones as it is; or
    None."""
    if not takes_the_mean(plan.strategy) or part_means_of(plan).names:
        return None
    state = model_state(plan.model)
    return {
        name: state[name].cpu().numpy().dtype for name in federated_names(plan.model, plan.task).parameters
    }


def part_means_of(plan: Plan) -> PartMeans:
    """Return what averages by itself each part that not every client trains.

    A strategy that looks at single replies sees what clients send. So does a private one: what a client may
    add to its mean is bounded over all clients of the round.
    """
    declaration = declaration_of(plan.strategy)
    if not declaration.weighted_mean or declaration.private:
        return PartMeans()
    names = part_names(plan.task, federated_names(plan.model, plan.task))
    return PartMeans(names, plan.task_config.max_update_norm or math.inf)


def _work_of(plan: Plan, client: int) -> int:
    """Return the examples that a client trains on in a round, one that comes again in every epoch."""
    config = plan.task_config
    rows, _ = split_local_test(
        plan.partition[client], config.local_test_fraction, config.seed, client, plan.dataset.ordered
    )
    return len(rows) * config.local_epochs


def metrics_of(plan: Plan) -> list[str]:
    """Return the metrics of training that every client may tell, whether or not it has them in a round."""
    losses = [objective.name for objective in plan.task.objectives]
    personal = bool(declaration_of(plan.strategy).personal_rules)
    parts = [TRAINS + part for part in plan.task.parts]
    return [NUM_EXAMPLES, *parts, *losses, *([PERSONAL + name for name in losses] if personal else [])]


def expected_of(plan: Plan) -> Expected:
    """Return what clients must tell, as the strategy computes with it."""
    received = declaration_of(plan.strategy).received_losses
    losses = [RECEIVED + objective.name for objective in plan.task.objectives] if received else []
    declared = declaration_of(plan.strategy)
    return Expected(
        weight_keys(plan.strategy),
        losses,
        plan.task.ratios,
        {
            **{TRAINS + part: (0.0, 1.0) for part in plan.task.parts},
            **{name: (least, most) for name, least, most in declared.metric_ranges},
        },
        flags=[TRAINS + part for part in plan.task.parts],
        aux=may_reply_aux(plan.strategy),
        compression=plan.task_config.compression,
        max_update_norm=plan.task_config.max_update_norm or math.inf,
        max_examples=plan.task_config.max_examples or math.inf,
    )
