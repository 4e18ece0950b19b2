"""`polyfed.run`, `polyfed.load` and `polyfed.sweep`: thin, over what the command line uses."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from models.core.errors import UserError
from models.core.refusal import key_of
from server.errors import RunFailedError
from server.run_schema import CONFIG
from simulations.runs.reader import read_run
from simulations.runtime.warm import Workers
from simulations.scenario import find_scenario, load_scenario, name_of
from simulations.start import prepare
from simulations.tables import RunTables, SweepTables
from simulations.terminal import make_console

if TYPE_CHECKING:
    from pandas import DataFrame

    from simulations.runtime.launch import Runtime

__all__ = [
    "RunFailedError",
    "RunTables",
    "SweepTables",
    "UserError",
    "Workers",
    "explain",
    "load",
    "run",
    "sweep",
]

Scenario = str | Path | Mapping[str, Any]
"""The name of a scenario that comes with polyfed, the path of a TOML file, or run-config keys."""


def run(
    scenario: Scenario | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    runtime: "Runtime" = "ray",
    in_process: bool = False,
    ray_address: str = "",
    workers: Workers | None = None,
    progress: bool = True,
    **keys: Any,
) -> RunTables:
    """Run a scenario, as `polyfed run` does, and return its results.

    `keys` are run-config keys over the scenario, with underscores: `run("mnist", alpha=0.1, seed=7)`; a key
    with options takes a dict. A run that is resumed needs no scenario. `runtime` says who does the clients'
    work: "ray" (workers of its own), "flower" (Flower's simulation) or "in-process", which `in_process`
    stands for, too. `ray_address` ("HOST:PORT", else RAY_ADDRESS of the environment) is a Ray cluster to
    run on. `workers` are those that several runs share: see `Workers`.

    Raises UserError for what cannot work, and RunFailedError for a run that fails.
    """
    start = prepare(
        scenario,
        _overrides(keys),
        run_dir=Path(run_dir) if run_dir else None,
        resume=Path(resume) if resume else None,
        runtime="in-process" if in_process else runtime,
        ray_address=ray_address,
        warm=workers,
    )
    result = start.to_the_end(make_console(quiet=not progress))
    if result.status == "failed":
        raise RunFailedError(f"{result.reason} (run: {start.folder})")
    return RunTables(read_run(start.folder))


def load(folder: str | Path) -> RunTables | SweepTables:
    """Read the folder of a run, finished or not, or that of a sweep.

    Raises UserError where it holds neither.
    """
    path = Path(folder)
    if (path / CONFIG).is_file():
        return RunTables(read_run(path))
    runs = sorted(config.parent for config in path.glob(f"*/{CONFIG}"))
    if not runs:
        raise UserError(f"{path} is neither the folder of a run nor that of a sweep: it holds no {CONFIG}")
    return SweepTables(tuple(RunTables(read_run(each)) for each in runs), path.absolute())


def explain(
    run: str | Path,
    *,
    beside: str | Path | None = None,
    methods: Sequence[str] = (),
    examples: int = 32,
    progress: bool = True,
) -> "DataFrame":
    """Ask what a run's model looks at, as `polyfed explain` does, and return a row a method and example.

    Figures and every value lie in the run's folder then. Raises UserError for what cannot be explained.
    """
    from simulations.explain.command import explain
    from simulations.explain.summary import explained_frame

    other = None if beside is None else Path(beside)
    return explained_frame(explain(Path(run), other, methods, examples, make_console(quiet=not progress)))


def sweep(
    scenario: Scenario,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    arms: Sequence[Mapping[str, Any]] = ({},),
    uniform: Mapping[str, tuple[float, float]] | None = None,
    log_uniform: Mapping[str, tuple[float, float]] | None = None,
    random: int = 0,
    seeds: Sequence[int] = (1, 2, 3),
    folder: str | Path | None = None,
    workers: int = 0,
    progress: bool = True,
    **keys: Any,
) -> SweepTables:
    """Run a scenario over values and seeds, as `polyfed sweep` does, and return the results.

    The same call goes on where it was cut. `grid` gives the values of a key, `arms` keys that change
    together, `uniform` and `log_uniform` bounds between which `random` combinations are drawn. Keys have
    underscores or dashes; `keys` hold for every run. A run that fails is a warning, and no row.

    Raises UserError for what cannot work, before anything is run.
    """
    from simulations.experiments.parallel import failures, run_sweep
    from simulations.experiments.sweep import Space, plan_sweep
    from simulations.experiments.trial import Trial

    where = Path(folder or Path("runs") / f"sweep-{name_of(scenario)}").absolute()
    space = Space(
        [_with_dashes(arm) for arm in arms],
        _with_dashes(grid or {}),
        _with_dashes(uniform or {}),
        _with_dashes(log_uniform or {}),
    )
    combinations = space.combinations(random, seeds[0] if seeds else 0)
    trials = plan_sweep(_file_of(scenario, where), combinations, seeds, where, _overrides(keys))
    run_sweep(trials, workers, make_console(quiet=not progress))
    lines = tuple(failures(trials))
    for line in lines:
        warnings.warn(line, stacklevel=2)
    runs = (run for run in map(Trial.run, trials) if run)
    return SweepTables(tuple(map(RunTables, runs)), where, lines)


def _file_of(scenario: Scenario, folder: Path) -> Path:
    """Return the file of a scenario; keys are written into the sweep's folder, for its processes to read."""
    if not isinstance(scenario, Mapping):
        return find_scenario(scenario)
    load_scenario(scenario)  # a mistake is told before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scenario.toml"
    path.write_text(tomli_w.dumps(dict(scenario)), encoding="utf-8")
    return path


def _overrides(keys: Mapping[str, Any]) -> list[str]:
    from simulations.experiments.sweep import override

    return [override(key, value) for key, value in _with_dashes(keys).items()]


def _with_dashes(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key_of(key): value for key, value in keys.items()}
