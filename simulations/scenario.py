"""From a scenario file and the command line to a full run config."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.core.config import EARLIER, Config, RunConfig, TaskConfig, Value, check_keys, read
from models.core.errors import UserError, shown, unknown
from models.core.toml import quoted, toml_file, toml_value
from server.config import ServerConfig
from server.run_folder import new_folder
from server.run_schema import CONFIG, LOCK
from simulations.config import SimulationConfig
from simulations.options import OPTIONS

CONFIGS: tuple[type[Config], ...] = (TaskConfig, ServerConfig, SimulationConfig)
SCENARIOS = Path(__file__).parent / "configs"
"""The scenarios that come with polyfed."""
PLACE_OF_A_RUN = ("run-dir", "resume")
"""Keys that say where a run lies and how it began, and are none of a scenario."""
TIME = re.compile(r"(-\d{8}-\d{6}(-\d+)?)+$")
"""What `new_run_dir` adds to a name."""


def defaults() -> dict[str, Value]:
    """Return every run-config key with its default."""
    return {key: default for cls in CONFIGS for key, default in cls.defaults().items()}


def find_scenario(given: str | Path) -> Path:
    """Return the file of a scenario: a path, or the name of one that comes with polyfed.

    Raises UserError, with the nearest names, where there is neither.
    """
    path, text = Path(given), str(given)
    if path.is_file():
        return path
    if (path / CONFIG).is_file():
        raise UserError(
            f"{path} is the folder of a run: go on with it by --resume {path}, or run {path / CONFIG} again"
        )
    shipped = {file.stem: file for file in SCENARIOS.glob("*.toml")}
    if text in shipped:
        return shipped[text]
    if path.name != text or path.is_dir() or text.endswith(".toml"):
        names = ", ".join(sorted(shipped))
        raise UserError(f"scenario {path} is not there: give the path of a TOML file, or one of {names}")
    raise unknown("scenario", text, shipped)


def load_scenario(given: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Value]:
    """Return the run config of a scenario, overridden by `key=value` texts; tables of options as text.

    A scenario is a name, a path or the keys themselves. Raises UserError for a file that is not there or no
    TOML, and for keys and values that do not fit.
    """
    scenario = dict(given) if isinstance(given, Mapping) else _read(find_scenario(given))
    return _complete({**scenario, **dict(_parse(text) for text in overrides)})


def load_run_config(run_dir: Path, overrides: Sequence[str] = ()) -> dict[str, Value]:
    """Return the config of an earlier run, overridden, to go on with that run."""
    if not (run_dir / CONFIG).is_file():
        raise UserError(f"run-dir {run_dir} holds no run to resume: there is no {CONFIG}")
    return load_scenario(run_dir / CONFIG, overrides)


def _read(path: Path) -> dict[str, Any]:
    scenario = toml_file(path, "scenario")
    if (
        path.name == CONFIG and (path.parent / LOCK).exists()
    ):  # a run has said where it lies, and how it began
        return {**EARLIER, **{key: value for key, value in scenario.items() if key not in PLACE_OF_A_RUN}}
    return scenario


def _complete(given: Mapping[str, Any]) -> dict[str, Value]:
    """Add the defaults, write tables of options as text, make paths absolute; check it all."""
    check_keys(given, *CONFIGS)
    try:
        tables = {key: quoted(given[key]) for key in OPTIONS if isinstance(given.get(key), Mapping)}
    except RecursionError:
        raise UserError(f"{' or '.join(OPTIONS)} is nested too deeply: make it simpler") from None
    run_config = {**defaults(), **given, **tables}
    for key in ("data-dir", "init-from"):
        if run_config[key]:
            run_config[key] = str(Path(str(run_config[key])).expanduser().absolute())
    validate(run_config)
    return run_config


def validate(run_config: RunConfig) -> None:
    """Raise UserError for a value that no config takes."""
    for cls in CONFIGS:
        read(cls, run_config)


def new_run_dir(name: str) -> Path:
    """Make a folder for a new run, under ./runs; it is the run's alone."""
    return new_folder(Path("runs").absolute(), f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")


def name_of(scenario: str | Path | Mapping[str, Any]) -> str:
    """Return what a run of the scenario is called: as its file, or as the run whose config it is."""
    if isinstance(scenario, Mapping):
        return "run"
    path = find_scenario(scenario)
    if path.name == CONFIG:
        return TIME.sub("", path.absolute().parent.name) or "run"
    return path.stem


def _parse(text: str) -> tuple[str, Value | dict[str, Any]]:
    """Read "key=value": TOML where it is a number, a truth or a table, else the text as it stands."""
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"an override must be key=value, got {shown(text)}")
    key, value = key.strip(), value.strip()
    try:
        parsed = toml_value(value)
    except ValueError:
        return key, value
    return key, parsed if isinstance(parsed, bool | int | float | str | dict) else value
