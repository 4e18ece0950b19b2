"""The Flower ServerApp."""

import time
from logging import ERROR, INFO
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.common import log
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from models.config import TaskConfig, read
from models.data.fingerprint import data_sha256
from models.data.partition import count_labels, partition
from models.data.registry import load_dataset
from models.errors import UserError
from models.optimizers import make_optimizers
from models.registry import load_task
from models.state import build_model, weights_sha256
from models.task import is_federated
from server.checkpoint import write_safetensors
from server.cohort_grid import CohortGrid
from server.config import ServerConfig
from server.errors import RunFailedError
from server.evaluation import CentralEvaluation
from server.roster import Roster
from server.rounds import RoundLoop
from server.run_folder import PARTITION, RunFolder
from server.strategy import load_strategy
from strategies.registry import takes_weighted_mean

# Clients that the picture of who holds what can show.
PICTURED_CLIENTS = 100

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that the run config asks for, in a run folder of their own."""
    config, task_config = read(ServerConfig, context.run_config), read(TaskConfig, context.run_config)
    path = Path(config.run_dir) if config.run_dir else _new_run_dir(task_config, context.run_id)
    folder = RunFolder(path, context.run_config, resume=config.resume)
    try:
        loop = _prepare(grid, config, task_config, folder)
        _report_end(loop, loop.run(), "")
    except Exception as error:
        expected = isinstance(error, UserError | RunFailedError)
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        log(ERROR, "The run failed: %s", reason)
        folder.finish({"status": "failed", "reason": reason})
        raise
    finally:
        folder.close()


def _prepare(grid: Grid, config: ServerConfig, task_config: TaskConfig, folder: RunFolder) -> RoundLoop:
    """Build everything that a mistake in the run config could break, then wait for the nodes."""
    dataset = load_dataset(task_config)
    task = load_task(task_config, dataset)
    model = build_model(task, task_config.seed)
    make_optimizers(task, model, task_config)
    strategy = load_strategy(config, task_config.num_clients)
    deal = partition(dataset, task_config)
    shown = range(min(task_config.num_clients, PICTURED_CLIENTS))
    counts = count_labels(dataset, deal, shown)
    folder.write_json(
        PARTITION, {"num_clients": task_config.num_clients, "classes": dataset.classes, "counts": counts}
    )

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    roster = Roster(
        num_clients=task_config.num_clients,
        expected={
            "data": data_sha256(dataset),
            "state": [f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()],
        },
        # Simulated nodes are workers of one machine or cluster, with one disk under them.
        interchangeable=isinstance(grid, InMemoryGrid) or getattr(grid, "interchangeable_nodes", False),
    )
    roster.wait_for_all(grid, config.node_timeout)
    log(INFO, "%d clients on %d nodes", roster.num_clients, len(roster.partitions))
    weighted_by = getattr(strategy, "weighted_by_key", "") if takes_weighted_mean(strategy) else ""
    cohort_grid = CohortGrid(grid, roster, state_path=str(folder.path / "clients"), weighted_by=weighted_by)
    weights = {name: tensor for name, tensor in state.items() if is_federated(name, tensor, task.local)}
    loop = RoundLoop(
        config,
        task_config.seed,
        strategy,
        cohort_grid,
        CentralEvaluation(task, model, task_config),
        folder,
        weights,
    )
    if config.resume:
        loop.resume()
    return loop


def _report_end(loop: RoundLoop, status: str, reason: str) -> None:
    progress, folder = loop.progress, loop.folder
    write_safetensors(folder.path / "models" / "last.safetensors", loop.weights)
    folder.draw(loop.evaluation.figures(loop.weights), progress.server_round)
    result: dict[str, Any] = {
        "status": status,
        "reason": f"no better {loop.task.metric} in {progress.stale} evaluations" if status == "stopped" else reason,
        "server_round": progress.server_round,
        "metric": loop.task.metric,
        "maximize": loop.task.maximize,
        "best_round": progress.best_round,
        "best": progress.best,
        "final": progress.final,
        "weights_sha256": weights_sha256(loop.weights),
        "num_parameters": sum(tensor.numel() for tensor in loop.weights.values()),
    }
    folder.finish(result)
    log(INFO, "Weights %s after round %d in %s", result["weights_sha256"], progress.server_round, folder.path)


def _new_run_dir(config: TaskConfig, run_id: int) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path.home() / ".polyfed" / "runs" / f"{config.task}-{stamp}-{run_id % 10_000:04d}"
