"""What the name of a dataset of environments asks for, and the physics of its worlds.

gym:CartPole-v1
gym:CartPole-v1?worlds=4&envs=8&length=0.3..0.8&gravity=9..11
gym:FrozenLake-v1?is_slippery=false&map_name=8x8
gym:ale_py:ALE/Pong-v5?obs_type=ram&max_episode_steps=2000
gym:ALE/Pong-v5?frame_stack=4&screen_size=84
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.game_packages import is_atari

EPISODES = 20
"""Examples for a test, and as many for validation, unless a dataset's name says otherwise."""
LIMIT = "max_episode_steps"
"""Gymnasium's own limit, for environments that have none."""
FRAME_STACK = "frame_stack"
"""How many of its last frames an agent sees at a time."""
ATARI_OPTIONS = ("frame_skip", "noop_max", "screen_size")
"""Whole numbers that gymnasium's AtariPreprocessing takes."""


@dataclass(frozen=True)
class Wanted:
    """What the part after "gym:" of a dataset name asks for."""

    id: str
    worlds: int
    envs: int
    """Environments a world."""
    episodes: int
    """Examples for a test, and as many for validation."""
    bounds: Mapping[str, tuple[float, float]]
    """Physics -> (lowest, highest)."""
    arguments: Mapping[str, Any]
    """What all environments are made with: texts and truths, gymnasium's own limit of steps, and how an agent
    sees them."""

    @property
    def counts(self) -> tuple[str, ...]:
        """Names of whole numbers that are no physics and no arguments of a constructor."""
        return _counts(self.id)


def parse(config: TaskConfig) -> Wanted:
    """Read the dataset's name; raises UserError for values that stand for nothing."""
    _, _, text = config.dataset.partition(":")
    id_, _, query = text.partition("?")
    bounds: dict[str, tuple[float, float]] = {}
    arguments: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        options = dict(pairs)
        if len(options) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise UserError(f"{twice} must be given once in dataset {config.dataset!r}")
        usual = {"worlds": config.num_clients, "envs": 4, "episodes": EPISODES}
        counted = {name: options.pop(name) for name in (*usual, *_counts(id_)) if name in options}
        for name, value in counted.items():
            if not value.removeprefix("-").isdecimal():
                raise UserError(f"{name} must be a whole number, got {value!r} in dataset {config.dataset!r}")
        given = {**usual, **{name: int(value) for name, value in counted.items()}}
        worlds, envs, episodes = (given.pop(name) for name in usual)
        arguments |= given
        for name, value in options.items():
            if isinstance(read := _read(value), tuple):
                bounds[name] = read
            else:
                arguments[name] = read
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            "dataset must be like 'gym:CartPole-v1?worlds=4&envs=4&length=0.3..0.8' "
            f"(numbers, ranges LOW..HIGH, true, false or texts), got {config.dataset!r}"
        ) from error
    if min(worlds, envs, arguments.get(LIMIT, 1)) < 1:
        raise UserError(f"worlds, envs and {LIMIT} must be >= 1 in dataset {config.dataset!r}")
    for name, value in {"episodes": episodes, **arguments}.items():
        least = 0 if name == "noop_max" else 1
        if name in ("episodes", *_counts(id_)) and value < least:
            raise UserError(f"{name} must be >= {least} in dataset {config.dataset!r}")
    return Wanted(id_, worlds, envs, episodes, bounds, arguments)


def _counts(id_: str) -> tuple[str, ...]:
    return (LIMIT, FRAME_STACK, *(ATARI_OPTIONS if is_atari(id_) else ()))


def _read(text: str) -> tuple[float, float] | bool | str:
    """Return what a value stands for: (lowest, highest), a truth, or a text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    low, dots, high = text.partition("..")
    try:
        bounds = (float(low), float(high if dots else low))
    except ValueError:
        if dots or not text:
            raise
        return text
    if not -np.inf < bounds[0] <= bounds[1] < np.inf:
        raise ValueError(text)
    return bounds


def spread(count: int, bounds: Mapping[str, tuple[float, float]], rng: np.random.Generator) -> NDArray[Any]:
    """Split every range evenly, in an order of its own (McKay et al. 1979): (count, num_physics)."""
    low, high = np.array(list(bounds.values()), dtype=np.float64).reshape(-1, 2).T
    cells = rng.permuted(np.tile(np.arange(count), (len(low), 1)), axis=1).T
    return low + (cells + 0.5) / count * (high - low)


def names(wanted: Wanted, worlds: NDArray[Any]) -> tuple[str, ...]:
    """Return the physics in which each world differs from others, such as "length 0.35"."""
    varied = [(at, name) for at, (name, (low, high)) in enumerate(wanted.bounds.items()) if low < high]
    if not varied:
        return ()
    return tuple(", ".join(f"{name} {world[at]:.4g}" for at, name in varied) for world in worlds)
