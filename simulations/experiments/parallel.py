"""Several runs at a time, each in a process of its own, with a bar for each."""

import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from joblib import cpu_count
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from server.run_schema import ERRORS, METRICS, RUN_LOG, whole_record
from simulations.experiments.processes import Process, Processes, processes
from simulations.experiments.trial import Trial
from simulations.runs.compare import number
from simulations.runs.record import UNFINISHED
from simulations.runtime.oom import lack_of_memory, num_oom_kills
from simulations.runtime.round_line import is_failed
from simulations.runtime.terminal import num_warnings
from simulations.scenario import load_scenario

PAUSE = 0.2
"""Most seconds between two looks at the processes."""
LOG = "output.log"
REASONS = ("failed:", "polyfed:")
"""How the lines begin with which a run says why it failed."""


@dataclass(frozen=True)
class _Running:
    trial: Trial
    process: Process
    bar: TaskID
    oom_kills: int | None = field(default_factory=num_oom_kills)
    """How many processes the kernel had killed for lack of memory when it started."""


def run_trials(trials: Sequence[Trial], workers: int, console: Console) -> None:
    """Run the trials, or go on with those that have begun, `workers` of them at a time.

    A run computes on one thread, and depends on nothing that runs beside it. One that fails does not
    stop the others. Whatever way this ends, no process is left.
    """
    waiting, running = deque(trials), list[_Running]()
    name = Column(no_wrap=True, overflow="ellipsis", ratio=1)  # the name gives way before the numbers do
    columns = (
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(10),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    bars = Progress(*columns, console=console, disable=not console.is_terminal, expand=True)
    tasks = {str(load_scenario(trial.scenario, trial.overrides)["task"]) for trial in trials}
    with processes(tasks) as ours, bars as progress:
        whole = progress.add_task("runs", total=len(trials))
        while waiting or running:
            while waiting and len(running) < workers:
                trial = waiting.popleft()
                bar = progress.add_task(trial.name, total=trial.num_rounds)
                running.append(_Running(trial, _start(trial, ours), bar))
            ours.wait(PAUSE)
            for one in list(running):
                progress.update(one.bar, completed=_rounds_done(one.trial.folder))
                if one.process.returncode is not None:
                    _note_silent_death(one)
                    running.remove(one)
                    progress.remove_task(one.bar)
                    progress.advance(whole)
                    console.print(_ending(one.trial), soft_wrap=True, highlight=False, markup=False)


def run_sweep(trials: Sequence[Trial], workers: int, console: Console) -> None:
    """Run those trials that have not come to a good end; 0 workers = one a CPU."""
    if open_ones := [trial for trial in trials if trial.run() is None]:
        run_trials(open_ones, workers or cpu_count(), console)


def _note_silent_death(one: _Running) -> None:
    """Add to a run's output how its process ended, where the process itself has not said what went wrong."""
    code, log = one.process.returncode or 0, one.trial.folder / LOG
    said = log.read_text(errors="replace", encoding="utf-8").splitlines() if log.is_file() else []
    explained = any(line.startswith(REASONS) for line in said)
    if one.trial.run() or explained or (code > 0 and said):  # where Python has said it, in its last line
        return
    how = f"ended with exit code {code}"
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}{lack_of_memory(one.oom_kills)}"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"failed: its process {how}, without a word\n")


def last_words(trial: Trial) -> str:
    """Return why a run failed: what its result says, else the last line of its output."""
    log = trial.folder / LOG
    lines = log.read_text(errors="replace", encoding="utf-8").splitlines() if log.is_file() else []
    said = [line for line in lines if line.startswith(REASONS)] or lines
    return said[-1] if said else "it has not run"


def failures(trials: Sequence[Trial]) -> list[str]:
    """Return a line for each run that has not come to a good end."""
    return [
        f"{trial.name}: {last_words(trial)} (see {_evidence(trial)})" for trial in trials if not trial.run()
    ]


def _evidence(trial: Trial) -> Path:
    """Return the file that says most about why a run failed."""
    errors = trial.folder / ERRORS
    return errors if errors.exists() else trial.folder / LOG


def _start(trial: Trial, ours: Processes) -> Process:
    if trial.begun and not trial.resumable:
        trial.set_aside()  # a resume would be refused, as it could only start over
    trial.folder.mkdir(parents=True, exist_ok=True)
    words = ["run", str(trial.scenario), "--in-process"]
    words += ["--resume" if trial.begun else "--run-dir", str(trial.folder)]
    words += [word for override in trial.overrides for word in ("-c", override)]
    return ours.start(words, trial.folder / LOG)


def _rounds_done(folder: Path) -> int:
    metrics = folder / METRICS
    lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
    last = next(filter(None, map(whole_record, reversed(lines))), None)
    return last.server_round - is_failed(last) if last else 0


def _ending(trial: Trial) -> str:
    run = trial.run()
    if run is None or run.status == UNFINISHED:
        return f"{trial.name} failed: {last_words(trial)}"
    final = number(run.final[run.metric]) if run.metric in run.final else "not measured"
    best = f" (best {number(run.best.metrics[run.metric])})" if run.best else ""
    ended = f"{trial.name}: final {run.metric} {final}{best} in {run.seconds:.0f} s"
    log = trial.folder / RUN_LOG
    warnings = num_warnings(log)
    return f"{ended}; {warnings} warnings in {log}" if warnings else ended
