"""Environments to act in, as examples: any gymnasium id with discrete actions and a flat observation.

    gym:CartPole-v1
    gym:CartPole-v1?worlds=4&envs=8&length=0.3..0.8&gravity=9..11

An example is one environment that a client acts in. The examples of a world share its physics: numbers
between the bounds asked for, which the worlds split evenly. Worlds are the natural clients, one a client
unless `worlds` says otherwise, so that a single client can be given all of them. A held-out example is one
episode.
"""

import inspect
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from numpy.typing import NDArray

from models.core.config import TaskConfig
from models.core.errors import UserError, unknown
from models.data.dataset import Dataset, Examples

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.vector import SyncVectorEnv

# gymnasium is imported where it is used, so that a worker of another family does without.

EPISODES = 20
"""Held-out examples."""
_PHYSICS_SEED = 0
"""Worlds are the same whatever the seed of the run, so that runs compare."""


@dataclass(frozen=True)
class _Wanted:
    """What the part after "gym:" of a dataset name asks for."""

    id: str
    worlds: int
    envs: int
    """Environments a world."""
    bounds: Mapping[str, tuple[float, float]]
    """Physics -> (lowest, highest)."""


def load_environments(config: TaskConfig) -> Dataset:
    """Return the environments that `config.dataset` asks for, with column "physics" (N, num_physics).

    Raises UserError for an id that gymnasium cannot make, actions or observations that a table of
    Q-values does not fit, episodes without an end, and physics that the environment has not.
    """
    wanted = _parse(config)
    lowest = {name: low for name, (low, _) in wanted.bounds.items()}
    highest = {name: high for name, (_, high) in wanted.bounds.items()}
    info = {"id": wanted.id, "physics": tuple(wanted.bounds), **_checked_spaces(wanted.id, lowest)}
    _checked_spaces(wanted.id, highest)
    rng = np.random.default_rng(_PHYSICS_SEED)
    owners = np.repeat(np.arange(wanted.worlds), wanted.envs)
    worlds = _spread(wanted.worlds, wanted.bounds, rng)
    return Dataset(
        name=config.dataset,
        kind="environments",
        train=_rows(worlds[owners]),
        test=_rows(_spread(EPISODES, wanted.bounds, rng)),
        client=owners,
        client_names=_names(wanted, worlds),
        info=info,
    )


def open_environments(dataset: Dataset, rows: Examples) -> "SyncVectorEnv":
    """Return the environments of these examples, to be stepped together and closed after use.

    One that has ended an episode spends its next step on starting another.
    """
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    names = dataset.info["physics"]

    def maker(values: list[float]) -> "Env[Any, Any]":
        return _make(dataset.info["id"], dict(zip(names, values, strict=True)))

    makers = [lambda values=values: maker(values) for values in rows["physics"].tolist()]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)


def _parse(config: TaskConfig) -> _Wanted:
    _, _, text = config.dataset.partition(":")
    id_, _, query = text.partition("?")
    try:
        if not id_:
            raise ValueError("no id")
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        worlds = int(options.pop("worlds", config.num_clients))
        envs = int(options.pop("envs", 4))
        bounds = {name: _range(value) for name, value in options.items()}
    except ValueError as error:
        raise UserError(
            "dataset must be like 'gym:CartPole-v1?worlds=4&envs=4&length=0.3..0.8' "
            f"(numbers or ranges LOW..HIGH), got {config.dataset!r}"
        ) from error
    if worlds < 1 or envs < 1:
        raise UserError(f"worlds and envs must be >= 1 in dataset {config.dataset!r}")
    return _Wanted(id_, worlds, envs, bounds)


def _range(text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    bounds = (float(low), float(high if dots else low))
    if not -np.inf < bounds[0] <= bounds[1] < np.inf:
        raise ValueError(text)
    return bounds


def _spread(count: int, bounds: Mapping[str, tuple[float, float]], rng: np.random.Generator) -> NDArray[Any]:
    """Split every range evenly, in an order of its own (McKay et al. 1979): (count, num_physics)."""
    low, high = np.array(list(bounds.values()), dtype=np.float64).reshape(-1, 2).T
    cells = rng.permuted(np.tile(np.arange(count), (len(low), 1)), axis=1).T
    return low + (cells + 0.5) / count * (high - low)


def _rows(physics: NDArray[Any]) -> Examples:
    return Examples({"physics": torch.from_numpy(physics)})


def _names(wanted: _Wanted, worlds: NDArray[Any]) -> tuple[str, ...]:
    """Return the physics in which each world differs from others, such as "length 0.35"."""
    varied = [(at, name) for at, (name, (low, high)) in enumerate(wanted.bounds.items()) if low < high]
    if not varied:
        return ()
    return tuple(", ".join(f"{name} {world[at]:.4g}" for at, name in varied) for world in worlds)


def _make(id_: str, physics: Mapping[str, float]) -> "Env[Any, Any]":
    """Make one environment; physics that its constructor does not take is set on it."""
    import gymnasium

    taken = _constructor_options(id_) & physics.keys() if physics else set()
    given: dict[str, Any] = {name: physics[name] for name in taken}
    env = gymnasium.make(id_, disable_env_checker=True, **given)
    bare: Any = env.unwrapped
    for name in physics.keys() - taken:
        known = [key for key, value in vars(bare).items() if type(value) in (int, float) and key[0] != "_"]
        if name not in known:
            raise unknown(f"physics of {id_}", name, known or ["none"])
        setattr(bare, name, physics[name])
    if hasattr(bare, "polemass_length"):  # CartPole's constructor derives these two from the others
        bare.total_mass = bare.masspole + bare.masscart
        bare.polemass_length = bare.masspole * bare.length
    return env


def _constructor_options(id_: str) -> set[str]:
    import gymnasium

    with closing(gymnasium.make(id_, disable_env_checker=True)) as env:
        return set(inspect.signature(type(env.unwrapped)).parameters)


def _checked_spaces(id_: str, physics: Mapping[str, float]) -> dict[str, int]:
    """Return the sizes that a network needs."""
    from gymnasium.error import Error
    from gymnasium.spaces import Box, Discrete

    try:
        env = _make(id_, physics)
    except UserError:
        raise
    except (Error, ImportError, ValueError) as error:  # no such name or package; a constructor's refusal
        given = "".join(f", {name} = {value}" for name, value in physics.items())
        raise UserError(f"gymnasium cannot make {id_!r}{given}: {' '.join(str(error).split())}") from error
    actions, observations, spec = env.action_space, env.observation_space, env.spec
    env.close()
    if not isinstance(actions, Discrete):
        raise UserError(f"{id_} must have discrete actions, one Q-value each; its actions are {actions}")
    if not isinstance(observations, Box) or len(observations.shape) != 1:
        raise UserError(f"{id_} must have a flat Box observation (size,); its observation is {observations}")
    if spec is None or spec.max_episode_steps is None:
        raise UserError(
            f"{id_} must end its episodes: a greedy one might go on for ever; "
            "register it with max_episode_steps"
        )
    return {
        "observation_size": int(observations.shape[0]),
        "num_actions": int(actions.n),
        "first_action": int(actions.start),
    }
