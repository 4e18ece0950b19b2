"""One run config, run on Ray, under Flower or here, with a progress bar and one truth about how it ended."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from logging import WARNING
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from filelock import BaseFileLock
from rich.console import Console

from models.core.config import Value, read
from models.core.errors import UserError
from models.core.log import log
from models.core.tracebacks import line_of
from server.error_log import ErrorLog
from server.label_agreement import agreed_before, with_labels
from server.plan import Plan, make_plan
from server.resume import checkpoint_to_resume
from server.run_folder import claim, hold, write_json
from server.run_schema import CONFIG, LAUNCHER, METRICS, RESULT, RUN_LOG, SCHEMA, RunResult
from simulations.config import ResolvedSimulation, SimulationConfig, resolve
from simulations.runtime.heeded import check_device, check_nodes, unheeded
from simulations.runtime.progress import RoundProgress
from simulations.runtime.terminal import FollowedLog, Terminal, terminal_log

if TYPE_CHECKING:
    from simulations.runtime.flower import FlowerOutcome
    from simulations.runtime.ray_workers import RayWorkers
    from simulations.runtime.warm import Workers

Runtime = Literal["ray", "flower", "in-process"]
"""What a run has its clients' work done by: workers of Ray's, Flower's simulation, or this process."""
Start: TypeAlias = "Callable[[Plan], RayWorkers] | None"
"""Gives the workers of a run on Ray, once there is a plan; None under another runtime."""

OnFlower: TypeAlias = "Callable[..., FlowerOutcome]"
"""Runs polyfed's app under Flower, with the arguments of `run_on_flower`."""


@contextmanager
def launch(
    run_config: dict[str, Value],
    *,
    runtime: Runtime,
    verbose: bool,
    console: Console,
    debug: bool = False,
    ray_address: str = "",
    warm: "Workers | None" = None,
    on_flower: "OnFlower | None" = None,
) -> Iterator[RunResult]:
    """Run to the end and give what RUN/result.json says, while the run's Ray is ending.

    A run on Ray is on the cluster at `ray_address`, or by these `warm` workers, where one is given. One under
    Flower is run by `on_flower`, on real nodes; by Flower's simulation unless given.

    Raises UserError for what can be told beforehand: a config that cannot work, a run folder that is in
    use or cannot be gone on with, too few CPUs or GPUs. With `debug` the first exception is raised.
    """
    folder = Path(str(run_config["run-dir"]))
    errors = ErrorLog(folder)
    # What a cluster can carry is known once it is asked.
    simulation = None if ray_address else resolve(read(SimulationConfig, run_config))
    with (
        terminal_log(verbose) as terminal,
        _workers(runtime, run_config, simulation, ray_address, warm) as start,
    ):
        try:
            plan, launcher = _plan(run_config, folder, runtime, real_nodes=on_flower is not None)
        except UserError:
            raise
        except Exception as error:
            if debug:
                raise
            claim(folder, run_config, resume=bool(run_config["resume"])).release()  # it must be this run's
            errors.record("the plan of the run, before it began", error)
            yield RunResult(schema_number=SCHEMA, status="failed", reason=line_of(error))
            return
        if plan.transfer and not run_config["resume"]:
            for line in plan.transfer.lines():
                console.print(line, soft_wrap=True, highlight=False, markup=False)
        for line in unheeded(runtime, run_config):
            log(WARNING, "%s", line)
        before = _stamp(folder / RESULT)
        try:
            with RoundProgress(folder, int(run_config["num-server-rounds"]), console, plan.task.metric):
                if runtime == "flower":
                    assert simulation
                    reason = _on_flower(run_config, simulation, verbose, terminal, errors, on_flower)
                else:
                    reason = _here(run_config, plan, start, errors, debug)
        except KeyboardInterrupt:
            _result(folder / RESULT, before, "interrupted", "unfinished")
            raise
        finally:
            launcher.release()
        yield _result(folder / RESULT, before, reason)


def _workers(
    runtime: Runtime,
    run_config: dict[str, Value],
    simulation: ResolvedSimulation | None,
    ray_address: str,
    warm: "Workers | None",
) -> AbstractContextManager[Start]:
    """Start the workers, where the run has any of its own, while it is planned."""
    if runtime != "ray":
        return nullcontext()
    if simulation is None:
        return _on_cluster(run_config, ray_address)
    return warm.for_run(run_config, simulation) if warm else _on_this_machine(run_config, simulation)


@contextmanager
def _on_this_machine(run_config: dict[str, Value], simulation: ResolvedSimulation) -> Iterator[Start]:
    from simulations.runtime.ray_session import ray_session

    with ray_session(run_config, simulation) as session:

        def start(_: Plan) -> "RayWorkers":
            workers = session.workers.result()
            workers.let_go = session.let_go
            return workers

        yield start


@contextmanager
def _on_cluster(run_config: dict[str, Value], address: str) -> Iterator[Start]:
    from simulations.runtime.ray_cluster import on_cluster

    with on_cluster(address, run_config) as cluster:
        yield cluster.start


def _plan(
    run_config: dict[str, Value], folder: Path, runtime: Runtime, *, real_nodes: bool
) -> tuple[Plan, BaseFileLock]:
    """Build what the ServerApp will build, and look at the run folder, before anybody has to wait.

    The lock keeps others from launching a run there meanwhile, and from showing this one as theirs.
    """
    # With the labels that the nodes of a run that goes on have agreed on: they decide its network's size.
    labels = agreed_before(folder) if run_config["resume"] else ()
    plan = make_plan(with_labels(run_config, labels), real_nodes=real_nodes)
    check_device(runtime, run_config)
    check_nodes(runtime, run_config)
    lock = claim(folder, run_config, resume=plan.config.resume)
    try:
        if plan.config.resume:
            checkpoint_to_resume(plan, folder)
        launcher = hold(folder, LAUNCHER)
    finally:
        lock.release()
    return plan, launcher


def _here(run_config: dict[str, Value], plan: Plan, start: Start, errors: ErrorLog, debug: bool) -> str:
    """Run the ServerApp in this process; return why it failed, "" where it has not."""
    from simulations.runtime.in_process import run_in_process

    try:
        workers = start(plan) if start else None
    except UserError:
        raise
    except Exception as error:
        errors.record("the start of Ray, before the run began", error)
        return f"Ray did not start: {line_of(error)}"
    try:
        if workers:
            from simulations.runtime.on_ray import run_on_ray

            run_on_ray(run_config, plan, workers)
        else:
            run_in_process(run_config, int(run_config["num-nodes"]) or 1, debug=debug)
    except UserError:
        raise
    except SystemExit as error:  # of code in the run: it must not choose this command's exit code
        return line_of(error)
    except Exception as error:  # the ServerApp has written the reason to the run folder
        if debug:
            raise
        return line_of(error)
    return ""


def _on_flower(
    run_config: dict[str, Value],
    simulation: ResolvedSimulation,
    verbose: bool,
    terminal: Terminal,
    errors: ErrorLog,
    on_flower: "OnFlower | None",
) -> str:
    from simulations.runtime.flower import run_on_flower

    run = on_flower or run_on_flower
    folder = errors.path.parent
    before = _stamp(folder / RESULT)
    followed = FollowedLog(folder / RUN_LOG, terminal)
    # Flower's log, which has polyfed's lines, is shown as a whole where that is asked for.
    look = None if verbose else followed.look
    outcome = run(run_config, simulation, on_tick=look, verbose=verbose)
    if outcome.may_go_better and not _has_ended(folder / RESULT, before) and not _has_rounds(folder):
        errors.write("Flower's runtime, before the first round", outcome.last_words or outcome.error)
        log(WARNING, "Flower failed before the first round, and is tried once more: %s", outcome.error)
        begun = {**run_config, "resume": bool(run_config["resume"]) or (folder / CONFIG).exists()}
        outcome = run(begun, simulation, on_tick=look, verbose=verbose)
    if look:
        look()
    # Else the ServerApp has said what went wrong.
    if outcome.error and not _has_ended(folder / RESULT, before):
        errors.write("Flower's runtime, which ended without a result", outcome.last_words or outcome.error)
    return outcome.error


def _has_rounds(folder: Path) -> bool:
    metrics = folder / METRICS
    return metrics.exists() and metrics.stat().st_size > 0


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from the one that was there before; None where there is none."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def _result(
    path: Path,
    before: tuple[int, int] | None,
    reason: str,
    status: Literal["failed", "unfinished"] = "failed",
) -> RunResult:
    """Return what the ServerApp wrote; where that does not say how it ended, it is `status`, for `reason`.

    The result of the run that was to be resumed stays where this one has not begun.
    """
    now = _stamp(path)
    if now not in (None, before):
        result = RunResult.model_validate_json(path.read_text(encoding="utf-8"))
        if result.status != "unfinished":
            return result
    why = reason or "the ServerApp wrote no result"
    failed = RunResult(schema_number=SCHEMA, status=status, reason=why)
    if now is None or now != before:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, failed)
    return failed


def _has_ended(path: Path, before: tuple[int, int] | None) -> bool:
    """Return whether the ServerApp has written how the run ended, and did not die before it could."""
    if _stamp(path) in (None, before):
        return False
    return RunResult.model_validate_json(path.read_text(encoding="utf-8")).status != "unfinished"
