"""Many runs of one scenario, over values of its keys and over seeds, and one table and report of them."""

import itertools
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.core.config import Value
from models.core.errors import UserError, shown
from models.core.toml import inline, toml_file, toml_value
from simulations.experiments.trial import Trial, fingerprint
from simulations.scenario import load_scenario

Overrides = Mapping[str, Value]


@dataclass(frozen=True)
class Space:
    """What a sweep varies."""

    arms: Sequence[Overrides] = ({},)
    """Keys that change together."""
    grid: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    """Key -> its values; all combinations."""
    uniform: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Key -> bounds between which values are drawn."""
    log_uniform: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The same, evenly over orders of magnitude."""

    def combinations(self, draws: int, seed: int) -> list[Overrides]:
        """Return all combinations, or `draws` random ones (all there are, if these are fewer).

        Raises UserError for bounds without a number of draws.
        """
        grid: list[Overrides] = [
            {**arm, **dict(zip(self.grid, values, strict=True))}
            for arm in self.arms
            for values in itertools.product(*self.grid.values())
        ]
        if not draws:
            if self.uniform or self.log_uniform:
                raise UserError("values between bounds are drawn: say how many with --random N")
            return grid
        generator = random.Random(seed)
        if not self.uniform and not self.log_uniform:
            return generator.sample(grid, min(draws, len(grid)))
        return [{**generator.choice(grid), **self._draw(generator)} for _ in range(draws)]

    def _draw(self, generator: random.Random) -> dict[str, Value]:
        drawn: dict[str, Value] = {key: generator.uniform(*bounds) for key, bounds in self.uniform.items()}
        for key, bounds in self.log_uniform.items():
            drawn[key] = math.exp(generator.uniform(*map(math.log, bounds)))
        return drawn


def plan_sweep(
    scenario: Path,
    combinations: Iterable[Overrides],
    seeds: Sequence[int],
    folder: Path,
    fixed: Sequence[str] = (),
) -> list[Trial]:
    """Return the runs of a sweep, seed by seed, so that a sweep that is cut short has every arm.

    `fixed` are texts key=value over the scenario, for every run. Raises UserError for a key or value that no
    scenario takes, and for a seed that is not among `seeds`, before anything is run.
    """
    combinations = list(combinations)
    if any(text.partition("=")[0].strip() == "seed" for text in fixed) or any(
        "seed" in overrides for overrides in combinations
    ):
        raise UserError("seed is no key to vary or to set in a sweep: give the seeds as --seeds 1,2,3")
    trials = []
    for seed, overrides in itertools.product(seeds, combinations):
        texts = tuple(override(key, value) for key, value in {**overrides, "seed": seed}.items())
        config = load_scenario(scenario, (*fixed, *texts))
        name = ", ".join(texts)
        where = folder / f"seed-{seed}-{fingerprint(config)}"
        trials.append(Trial(name, scenario, (*fixed, *texts), int(config["num-server-rounds"]), where))
    return list({trial.folder: trial for trial in trials}.values())


def parse_space(
    arms: Sequence[str],
    grid: Sequence[str],
    uniform: Sequence[str],
    log_uniform: Sequence[str],
    more_arms: Sequence[Overrides] = (),
) -> Space:
    """Read the texts of the command line.

    An arm is an inline table of keys, a grid `key=[values]`, bounds `key=[low, high]`. Raises UserError for
    anything else.
    """
    return Space(
        [*map(_table, arms), *more_arms] or [{}],
        dict(_values(text, "--grid") for text in grid),
        dict(_bounds(text, "--uniform", -math.inf) for text in uniform),
        dict(_bounds(text, "--log-uniform", 0.0) for text in log_uniform),
    )


def read_arms(path: Path) -> list[Overrides]:
    """Read a TOML file of `[[arm]]` tables, keys that change together.

    Raises UserError for a file that is not there, or holds anything else.
    """
    found = toml_file(path, "the file of arms")
    arms = found.get("arm")
    if (
        found.keys() != {"arm"}
        or not isinstance(arms, list)
        or not all(isinstance(arm, dict) for arm in arms)
    ):
        raise UserError(
            f"{path} must hold [[arm]] tables and nothing else, got {', '.join(found) or 'nothing'}"
        )
    return arms


def parse_seeds(text: str) -> list[int]:
    """Read `1,2,3`; raises UserError for anything else."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds must be whole numbers such as 1,2,3, got {shown(text)}") from error


def _table(text: str) -> Overrides:
    found = _toml(text)
    if not isinstance(found, dict):
        raise UserError(
            f"--arm must be a table such as {{strategy = 'FedAdam', alpha = 0.1}}, got {shown(text)}"
        )
    return found


def _values(text: str, option: str) -> tuple[str, list[Value]]:
    key, _, values = text.partition("=")
    found = _toml(values)
    if not isinstance(found, list) or not found:
        raise UserError(f"{option} must be key=[values] such as 'alpha=[0.1, 1.0]', got {shown(text)}")
    return key.strip(), found


def _bounds(text: str, option: str, least: float) -> tuple[str, tuple[float, float]]:
    key, values = _values(text, option)
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(values) != 2 or len(numbers) != 2 or not least < numbers[0] < numbers[1]:
        positive = " above 0" if least == 0 else ""
        raise UserError(f"{option} must be key=[low, high] with low < high{positive}, got {shown(text)}")
    return key, (float(numbers[0]), float(numbers[1]))


def _toml(text: str) -> Any:
    try:
        return toml_value(text.strip())
    except ValueError:
        return None


def override(key: str, value: Any) -> str:
    """Return the text key=value that reads back as the same value: JSON's are TOML's, but for tables."""
    if isinstance(value, Path):
        value = str(value)
    return f"{key}={inline(value) if isinstance(value, Mapping) else json.dumps(value)}"
