"""Environments to act in, as examples: any gymnasium id with discrete actions and a flat observation.

An example is one environment that a client acts in. The examples of a world share its physics: numbers
between the bounds asked for, which the worlds split evenly. Worlds are the natural clients, one a client
unless `worlds` says otherwise, so that a single client can be given all of them. A held-out example is one
episode. Texts and truths are arguments of the environment's constructor, the same in all worlds.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.core.config import TaskConfig
from models.core.errors import UserError, shown, unknown
from models.core.paths import names_a_place
from models.core.plugins import check_module
from models.data.dataset import Dataset, Examples
from models.data.worlds import LIMIT, Wanted, names, parse, spread

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.vector import SyncVectorEnv

# gymnasium is imported where it is used, so that a worker of another family does without.

EPISODES = 20
"""Examples for a test, and as many for validation."""
_PHYSICS_SEED = 0
"""Worlds are the same whatever the seed of the run, so that runs compare."""


def load_environments(config: TaskConfig) -> Dataset:
    """Return the environments that `config.dataset` asks for, with column "physics" (N, num_physics).

    Raises UserError for an id that gymnasium cannot make, actions or observations that a table of
    Q-values does not fit, episodes without an end, and physics that the environment has not.
    """
    wanted = parse(config)
    lowest = {name: low for name, (low, _) in wanted.bounds.items()}
    highest = {name: high for name, (_, high) in wanted.bounds.items()}
    sizes = _checked_spaces(wanted, lowest)
    _checked_spaces(wanted, highest)
    info = {"id": wanted.id, "physics": tuple(wanted.bounds), "arguments": wanted.arguments, **sizes}
    rng = np.random.default_rng(_PHYSICS_SEED)
    owners = np.repeat(np.arange(wanted.worlds), wanted.envs)
    worlds = spread(wanted.worlds, wanted.bounds, rng)
    return Dataset(
        name=config.dataset,
        kind="environments",
        train=_rows(worlds[owners]),
        test=_rows(spread(EPISODES, wanted.bounds, rng)),
        validation=_rows(spread(EPISODES, wanted.bounds, rng)),
        client=owners,
        client_names=names(wanted, worlds),
        info=info,
    )


def check_environments(config: TaskConfig, modules: Sequence[str]) -> None:
    """Raise UserError for an id in a package that none of these modules is, and for a path as an argument.

    Gymnasium imports the package that stands before an id.
    """
    wanted = parse(config)
    package, colon, _ = wanted.id.rpartition(":")
    if colon:
        check_module(f"dataset {shown(config.dataset)}", package, modules)
    for name, value in wanted.arguments.items():
        if isinstance(value, str) and (names_a_place(value) or "/" in value):
            raise UserError(f"{name} of {wanted.id} must be no path, got {shown(value)}")


def open_environments(dataset: Dataset, rows: Examples) -> "SyncVectorEnv":
    """Return the environments of these examples, to be stepped together and closed after use.

    One that has ended an episode spends its next step on starting another.
    """
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    id_, names = dataset.info["id"], dataset.info["physics"]
    arguments = dataset.info.get("arguments", {})

    def maker(values: list[float]) -> "Env[Any, Any]":
        return _make(id_, arguments, dict(zip(names, values, strict=True)))

    makers = [lambda values=values: maker(values) for values in rows["physics"].tolist()]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)


def _rows(physics: NDArray[Any]) -> Examples:
    return Examples({"physics": torch.from_numpy(physics)})


def _make(id_: str, arguments: Mapping[str, Any], physics: Mapping[str, float]) -> "Env[Any, Any]":
    """Make one environment; physics that its constructor does not take is set on it."""
    import gymnasium

    options = _constructor_options(id_) if physics else {}
    given: dict[str, Any] = {
        name: _as_declared(value, options[name]) for name, value in physics.items() if name in options
    }
    env = gymnasium.make(id_, disable_env_checker=True, **arguments, **given)
    bare: Any = env.unwrapped
    for name in physics.keys() - given.keys():
        known = _physics(bare)
        if name not in known:
            raise unknown(f"physics of {id_}", name, sorted({*known, *options}) or ["none"])
        setattr(bare, name, physics[name])
    if hasattr(bare, "polemass_length"):  # CartPole's constructor derives these two from the others
        bare.total_mass = bare.masspole + bare.masscart
        bare.polemass_length = bare.masspole * bare.length
    return _flat(env)


def _flat(env: "Env[Any, Any]") -> "Env[Any, Any]":
    """Return the environment with states that are numbered as one-hot vectors, and others as they are."""
    from gymnasium.spaces import Discrete, MultiDiscrete, Tuple
    from gymnasium.wrappers import FlattenObservation

    space = env.observation_space
    parts = space.spaces if isinstance(space, Tuple) else (space,)
    if all(isinstance(part, Discrete | MultiDiscrete) for part in parts):
        return FlattenObservation(env)
    return env


def _physics(bare: Any) -> list[str]:
    """Return the names of the numbers that an environment has."""
    return [name for name, value in vars(bare).items() if type(value) in (int, float) and name[0] != "_"]


def _constructor_options(id_: str) -> Mapping[str, inspect.Parameter]:
    import gymnasium

    with closing(gymnasium.make(id_, disable_env_checker=True)) as env:
        return inspect.signature(type(env.unwrapped)).parameters


def _as_declared(value: float, parameter: inspect.Parameter) -> float | bool:
    """Return a number as the constructor wants it: whole, or a truth, unless its default is a float."""
    if type(parameter.default) is bool and value in (0, 1):
        return bool(value)
    return int(value) if type(parameter.default) is not float and value == int(value) else value


def _check_arguments(wanted: Wanted) -> None:
    """Raise UserError for an argument that the environment's constructor does not take."""
    import gymnasium

    named = [name for name in wanted.arguments if name != LIMIT]
    options = _constructor_options(wanted.id) if named else {}
    if any(option.kind is option.VAR_KEYWORD for option in options.values()):
        return
    for name in named:
        if name in options:
            continue
        with closing(gymnasium.make(wanted.id, disable_env_checker=True)) as env:
            physics = _physics(env.unwrapped)
        if name in physics:
            value = wanted.arguments[name]
            raise UserError(f"{name} of {wanted.id} must be a number or a range LOW..HIGH, got {value!r}")
        raise unknown(f"argument of {wanted.id}", name, list(options) or ["none"])


def _checked_spaces(wanted: Wanted, physics: Mapping[str, float]) -> dict[str, int]:
    """Return the sizes that a network needs."""
    from gymnasium.error import Error, NameNotFound, NamespaceNotFound
    from gymnasium.spaces import Box, Discrete

    id_, given = wanted.id, {**wanted.arguments, **physics}
    # No such name or package; a constructor's refusal. What it raises of arguments may be anything.
    refusals = Exception if given else (Error, ImportError, ValueError)
    try:
        _check_arguments(wanted)
        env = _make(id_, wanted.arguments, physics)
    except UserError:
        raise
    except refusals as error:
        kind = "" if isinstance(error, Error | ImportError | ValueError) else f"{type(error).__name__}: "
        reason = kind + " ".join(str(error).split())
        if isinstance(error, NameNotFound | NamespaceNotFound) and ":" not in id_:
            reason += f" Where a package registers it, name that too: 'gym:PACKAGE:{id_}'"
        shown = "".join(f", {name} = {value}" for name, value in given.items())
        raise UserError(f"gymnasium cannot make {id_!r}{shown}: {reason}") from error
    actions, observations, spec = env.action_space, env.observation_space, env.spec
    env.close()
    if not isinstance(actions, Discrete):
        raise UserError(f"{id_} must have discrete actions, one Q-value each; its actions are {actions}")
    if not isinstance(observations, Box) or len(observations.shape) != 1:
        raise UserError(
            f"{id_} must have a flat Box observation (size,), or numbered states; its observation is "
            f"{observations}"
        )
    if spec is None or spec.max_episode_steps is None:
        raise UserError(
            f"{id_} must end its episodes: a greedy one might go on for ever; "
            f"add {LIMIT}=500, say, after its '?'"
        )
    return {
        "observation_size": int(observations.shape[0]),
        "num_actions": int(actions.n),
        "first_action": int(actions.start),
    }
