"""From a scenario file and the command line to a full run config."""

import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.core.config import Config, RunConfig, TaskConfig, Value, check_keys, read
from models.core.errors import UserError
from server.config import ServerConfig
from server.run_folder import new_folder
from simulations.config import SimulationConfig
from simulations.options import OPTIONS, quoted

CONFIGS: tuple[type[Config], ...] = (TaskConfig, ServerConfig, SimulationConfig)


def defaults() -> dict[str, Value]:
    """Return every run-config key with its default."""
    return {key: default for cls in CONFIGS for key, default in cls.defaults().items()}


def load_scenario(path: Path, overrides: Sequence[str] = ()) -> dict[str, Value]:
    """Return the run config of a scenario file, overridden by `key=value` texts; tables of options as text.

    Raises UserError for a file that is not there or no TOML, and for keys and values that do not fit.
    """
    if not path.is_file():
        raise UserError(
            f"scenario {path} is not there: give the path of a TOML file, as in simulations/configs"
        )
    try:
        scenario = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"scenario {path} is not TOML: {error}") from error
    given = {**scenario, **dict(_parse(text) for text in overrides)}
    check_keys(given, *CONFIGS)
    tables = {key: quoted(given[key]) for key in OPTIONS if isinstance(given.get(key), dict)}
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


def new_run_dir(scenario: Path) -> Path:
    """Make a folder for a new run, under ./runs; it is the run's alone."""
    return new_folder(Path("runs").absolute(), f"{scenario.stem}-{time.strftime('%Y%m%d-%H%M%S')}")


def _parse(text: str) -> tuple[str, Value | dict[str, Any]]:
    """Read "key=value": TOML where it is a number, a truth or a table, else the text as it stands."""
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"an override must be key=value, got {text!r}")
    key, value = key.strip(), value.strip()
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
    return key, parsed if isinstance(parsed, bool | int | float | str | dict) else value
