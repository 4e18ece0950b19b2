"""The Flower ServerApp."""

import math
import re
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from logging import CRITICAL, INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from models.core.config import RunConfig, TaskConfig, read
from models.core.errors import UserError
from models.core.log import log
from models.core.tracebacks import line_of, plain_line, traceback_of
from models.data.agreed_labels import open_labels
from models.data.attackers import attackers
from models.data.described import shapes_of_examples
from models.data.fingerprint import data_sha256
from models.data.labels import labels_of
from models.data.partition import client_names, count_labels, counted_classes
from models.state import describe_state, federated_names, model_state, weights_sha256
from server.callbacks.build import in_order
from server.checkpoint import SERVER_ROUND, Checkpoint, write_safetensors
from server.cohort import CohortGrid
from server.config import ServerConfig
from server.error_log import ErrorLog
from server.errors import RunFailedError
from server.evaluation import CentralEvaluation
from server.exchange import simulated_by_flower
from server.label_agreement import agree, agreed_before, with_labels
from server.node_clients import NodeClients
from server.node_refusal import Refusals
from server.node_registry import NodeRegistry
from server.opened_sums import OpenedSums
from server.plan import (
    Plan,
    expected_of,
    make_plan,
    mean_types_of,
    metrics_of,
    pace_of,
    part_means_of,
    requests_of,
)
from server.resume import check_engine_used, checkpoint_to_resume
from server.rounds import RoundLoop
from server.run_folder import RunFolder, new_folder, write_json
from server.run_log import run_log
from server.run_schema import (
    CLIENTS,
    LAST_MODEL,
    OPENED_SUMS,
    PARTITION,
    START_MODEL,
    TRANSFER,
    PartitionCounts,
    RunResult,
)
from server.secure_cohort import SecureCohortGrid
from server.secure_options import check_secure_nodes
from server.step_back import run_or_step_back
from server.strategy import cohort_size, evaluating_size, sampled_size
from server.tested import tested
from server.transfer import Transfer
from server.used import used_by
from strategies.declaration import declaration_of
from strategies.wire.node import DataDescription, debugged
from strategies.wire.vocabulary import Vocabulary

# Clients that the picture of who holds what can show.
PICTURED_CLIENTS = 100

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that the run config asks for, in a run folder of their own."""
    config, task_config = read(ServerConfig, context.run_config), read(TaskConfig, context.run_config)
    path = Path(config.run_dir) if config.run_dir else _new_run_dir(task_config, context.run_id)
    folder = RunFolder(path, context.run_config, resume=config.resume)
    errors = ErrorLog(folder.path, debug=debugged(context.node_config))
    with closing(folder), run_log(folder.path):
        _run(grid, context.run_config, folder, errors)


def _run(grid: Grid, run_config: RunConfig, folder: RunFolder, errors: ErrorLog) -> None:
    """Run, and leave behind how it ended."""
    loop = None
    try:
        before = agreed_before(folder.path)
        plan = make_plan(with_labels(run_config, before), real_nodes=not _share_a_disk(grid))
        if plan.config.resume:
            check_engine_used(plan, folder.path)
        folder.used = used_by(plan)
        if folder.begun:  # what a run that is killed has used is known, too
            folder.say_unfinished()
        checkpoint = checkpoint_to_resume(plan, folder.path) if plan.config.resume else None
        node_registry = _registry(plan, errors, before, has_trained=checkpoint is not None)
        met = _meet(grid, plan, node_registry, folder)
        if met is not plan:
            plan, folder.used = met, used_by(met)
        loop = _prepare(grid, plan, node_registry, folder, errors, checkpoint)
        status = run_or_step_back(loop, plan)
        if let_go := getattr(grid, "let_go", None):  # a Grid of polyfed's own
            let_go()
        _finish(loop, RunResult(status=status, reason=loop.stop_reason if status == "stopped" else ""))
    except BaseException as error:  # code that exits, or a Ctrl-C, would else end the run without a word
        reason = _reason(error)
        where = f"the run, after round {loop.progress.server_round}" if loop else "the run, before its rounds"
        errors.write(where, traceback_of(error))
        # Not merely an error: it is the last word, which `polyfed run` says in its own way.
        log(CRITICAL, "The run failed: %s (traceback: %s)", reason, errors.path)
        # What its user has interrupted may go on.
        interrupted = isinstance(error, KeyboardInterrupt)
        failed = RunResult(status="unfinished" if interrupted else "failed", reason=reason)
        try:
            if loop:
                failed = failed.model_copy(update=_outcome(loop))
                loop.callbacks.on_run_end(failed)
        finally:
            if folder.begun:  # else the folder holds what an earlier run has written, which stays
                folder.finish(failed)
        raise


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit) and _by_flower(error):
        return "Flower ended it: its SuperLink has gone, or was told to stop it"
    return plain_line(str(error)) if isinstance(error, UserError | RunFailedError) else line_of(error)


def _by_flower(error: SystemExit) -> bool:
    """Return whether Flower has ended the process, as it does when its SuperLink is no more."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(module.startswith("flwr.supercore.exit") for module in modules)


def _meet(grid: Grid, plan: Plan, node_registry: NodeRegistry, folder: RunFolder) -> Plan:
    """Wait for the nodes, and return the plan with the labels that they have agreed on."""
    patience = plan.config.node_timeout, plan.config.min_clients
    node_registry.wait_for_all(grid, *patience)
    plan, labels = agree(plan, folder.run_config, node_registry, folder.path)
    if labels:
        node_registry.ask_anew(_vocabulary(plan, labels), **_wanted(plan))
        node_registry.wait_for_all(grid, *patience)
    return plan


def _prepare(
    grid: Grid,
    plan: Plan,
    node_registry: NodeRegistry,
    folder: RunFolder,
    errors: ErrorLog,
    checkpoint: Checkpoint | None,
) -> RoundLoop:
    """Put the round loop together."""
    num_clients, pace = plan.task_config.num_clients, pace_of(plan)
    state = {name: tensor.clone() for name, tensor in model_state(plan.model).items()}
    fixed = _begin_with(plan.transfer, state, folder) if plan.transfer else {}
    folder.nodes = sorted(node_registry.machines)
    log(INFO, "%d clients on %d nodes", num_clients, len(node_registry.partitions))
    if plan.config.secure_aggregation:
        check_secure_nodes(len(node_registry.partitions))
    if plan.task_config.validation_fraction and plan.dataset.validation is None:
        said = "Dataset %s has too few examples to set any apart for validation: the test examples choose"
        log(WARNING, said, plan.task_config.dataset)
    if plan.task_config.engine == "auto":
        log(INFO, 'engine = "auto" is "%s": %s', plan.engine.name, plan.engine.why)
    for level, line in plan.task.notes():
        log(level, line)
    if attacking := attackers(plan.task_config):
        log(WARNING, "Attack %s by %d clients: %s", plan.task_config.attack, len(attacking), list(attacking))
        _warn_of_too_many(plan, len(attacking))
    for remark in declaration_of(plan.strategy).remarks:
        log(WARNING, "%s: %s", plan.config.strategy, remark)
    if plan.task.parts and not part_means_of(plan).names:
        said = "%s averages no part by itself: to it, what a client does not train is unchanged (%s)"
        log(INFO, said, plan.config.strategy, ", ".join(plan.task.parts))
    for remark in pace.remarks:
        log(WARNING, "%s", remark[0].upper() + remark[1:])
    if not node_registry.own_data:
        shown = range(min(num_clients, PICTURED_CLIENTS))
        counts = count_labels(plan.dataset, plan.partition, shown)
        classes = tuple(counted_classes(plan.dataset))
        picture = PartitionCounts(
            num_clients=num_clients,
            classes=classes,
            counts=counts,
            names=client_names(plan.dataset, plan.task_config),
            attackers=attacking,
        )
        write_json(folder.path / PARTITION, picture)
    cohort, asked = cohort_size(plan.config, num_clients), sampled_size(plan.config, num_clients)
    federated = federated_names(plan.model, plan.task)
    loop = RoundLoop(
        plan.config,
        plan.task_config.seed,
        plan.strategy,
        _cohort_grid(plan, folder)(
            grid,
            node_registry,
            node_timeout=plan.config.node_timeout,
            round_grace=plan.config.round_grace,
            sampled=max(asked, evaluating_size(plan.config, num_clients)),
            min_clients=plan.config.min_clients,
            fixed=fixed,
            requests=requests_of(plan),
            expected=expected_of(plan),
            weight_types=mean_types_of(plan),
            asynchronous=bool(plan.config.buffer_size),
        ),
        CentralEvaluation(plan.task, plan.model, plan.task_config),
        folder,
        {name: state[name] for name in federated.parameters},
        {name: state[name] for name in federated.statistics},
        fixed,
        _state_path(folder, plan),
        errors,
        in_order(plan.guests),
        pace,
        cohort if asked > cohort else math.inf,
        part_means_of(plan),
    )
    if plan.config.resume:
        loop.resume(checkpoint)
    return loop


def _share_a_disk(grid: Grid) -> bool:
    """Return whether nodes are simulated: workers of one machine or cluster, with one disk under them."""
    return simulated_by_flower(grid) or getattr(grid, "interchangeable_nodes", False)


def _cohort_grid(plan: Plan, folder: RunFolder) -> Callable[..., CohortGrid]:
    """Return what makes the cohort grid that the run asks for."""
    if not plan.config.secure_aggregation:
        return CohortGrid
    return partial(
        SecureCohortGrid,
        threshold=plan.config.secure_threshold,
        metrics=metrics_of(plan),
        patience=plan.config.node_timeout,
        opened=OpenedSums(folder.path / OPENED_SUMS),
    )


def _registry(plan: Plan, errors: ErrorLog, labels: tuple[str, ...], *, has_trained: bool) -> NodeRegistry:
    """Return the registry of nodes, of which none has been asked yet.

    `labels` are those that nodes agreed on before. They agree on none once there is a model to go on with.
    """
    config, simulated = plan.config, not plan.real_nodes
    can_agree = None if labels else open_labels(plan.task_config)
    if can_agree and has_trained and not simulated and can_agree.fit(labels_of(plan.dataset)):
        labels = labels_of(plan.dataset)
    return NodeRegistry(
        num_clients=plan.task_config.num_clients,
        **_wanted(plan),
        interchangeable=simulated,
        vocabulary=_vocabulary(plan, labels),
        open_labels=None if has_trained else can_agree,
        unfit=config.unfit_nodes,
        expected=0 if simulated else config.expected_nodes,
        node_timeout=config.node_timeout,
        silence=config.node_silence,
        may_host=NodeClients() if simulated else NodeClients.of_environment(),
        refusals=Refusals(errors.write),
    )


def _vocabulary(plan: Plan, labels: tuple[str, ...]) -> Vocabulary:
    """Return what nodes are told to read their own data with."""
    tokens = plan.task.learned_tokens()
    vocabulary = Vocabulary(labels, *((tokens.names, tokens.merges) if tokens else ()))
    try:
        vocabulary.check()
    except ValueError as error:
        task, dataset = plan.task_config.task, plan.task_config.dataset
        raise UserError(
            f"what task {task!r} makes of dataset {dataset!r} cannot be told to nodes ({error}): give "
            "another dataset, or shorten its names"
        ) from error
    return vocabulary


def _wanted(plan: Plan) -> dict[str, Any]:
    """Return what every node must have alike, by the names of `NodeRegistry`."""
    dataset = plan.dataset
    return {
        "data": data_sha256(dataset),
        "state": (*describe_state(model_state(plan.model)), *plan.task.agreed),
        "examples": DataDescription(
            kind=dataset.kind,
            num_examples=len(dataset.train),
            columns=shapes_of_examples(dataset),
            classes=labels_of(dataset),
        ),
    }


def _warn_of_too_many(plan: Plan, attacking: int) -> None:
    """Say where a round may have more attackers than its strategy is made for."""
    withstands = declaration_of(plan.strategy).withstands
    cohort = plan.config.buffer_size or cohort_size(plan.config, plan.task_config.num_clients)
    if withstands is not None and min(attacking, cohort) > withstands:
        log(
            WARNING,
            "%s withstands %d attackers a round, and up to %d of its %d clients attack",
            plan.config.strategy,
            withstands,
            min(attacking, cohort),
            cohort,
        )


def _begin_with(transfer: Transfer, state: Mapping[str, Tensor], folder: RunFolder) -> dict[str, Tensor]:
    """Say, record and keep what the run begins with; return the frozen part, which nodes cannot build."""
    start = folder.path / START_MODEL
    if transfer.source != str(start):  # else it is that of a run that goes on
        for line in transfer.lines():
            log(INFO, line)
        write_json(folder.path / TRANSFER, transfer.summary())
        write_safetensors(start, {name: state[name] for name in transfer.loaded})
    return {name: state[name] for name in transfer.loaded if name in transfer.frozen}


def _finish(loop: RoundLoop, ending: RunResult) -> None:
    """Write the final model and the result."""
    folder = loop.folder
    header = {SERVER_ROUND: str(loop.progress.server_round)}
    write_safetensors(folder.path / LAST_MODEL, loop.model, header)
    sha256 = weights_sha256(loop.model)
    update = {**_outcome(loop), "tested": tested(loop), "weights_sha256": sha256}
    result = ending.model_copy(update=update)
    loop.callbacks.on_run_end(result)
    folder.finish(result)
    log(INFO, "Weights %s after round %d in %s", sha256, loop.progress.server_round, folder.path)


def _outcome(loop: RoundLoop) -> dict[str, Any]:
    """Return how far the run came, and how well it did."""
    loop.folder.nodes = sorted(loop.grid.node_registry.machines)  # more may have joined
    return {
        "server_round": loop.progress.server_round,
        "metric": loop.task.metric,
        "maximize": loop.task.maximize,
        "best_round": loop.progress.best_round,
        "best": loop.progress.best,
        "final": loop.progress.final,
        "lost_states": sorted(loop.grid.states.lost) if loop.grid.states else [],
        "refused_nodes": [each.line for each in loop.grid.node_registry.refusals.ever.values()],
        "remarks": [*declaration_of(loop.strategy).remarks, *loop.pace.remarks],
        "num_parameters": sum(tensor.numel() for tensor in loop.weights.values()),
    }


def _state_path(folder: RunFolder, plan: Plan) -> str:
    """Return where clients keep their state: in the run folder, or under a name that is the run's own."""
    if not plan.real_nodes:
        return str(folder.path / CLIENTS)
    # Nodes take a name of plain letters; the token makes it the run's own.
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.path.name).lstrip(".")[:100]
    return f"{name}-{folder.token()}"


def _new_run_dir(config: TaskConfig, run_id: int) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return new_folder(Path.home() / ".polyfed" / "runs", f"{config.task}-{stamp}-{run_id % 10_000:04d}")
