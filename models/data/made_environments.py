"""Making one environment: gymnasium's, with the physics and the arguments that a dataset's name asks for."""

import inspect
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from models.core.errors import UserError, unknown
from models.data.game_packages import is_atari, package_of, register
from models.data.observations import atari_game, observed, shows_the_screen, sizes_of
from models.data.worlds import FRAME_STACK, LIMIT, Wanted

if TYPE_CHECKING:
    from gymnasium import Env

# gymnasium is imported where it is used, so that a worker of another family does without.

ATARI_STACK = 4
"""Frames that an agent sees of an Atari game, unless told otherwise."""


def make(id_: str, arguments: Mapping[str, Any], physics: Mapping[str, float]) -> "Env[Any, Any]":
    """Make one environment; physics that its constructor does not take is set on it."""
    register(id_)
    options, attributes = _settings(id_) if physics else ({}, [])
    further = any(option.kind is option.VAR_KEYWORD for option in options.values())
    given: dict[str, Any] = {
        name: _as_declared(value, options.get(name))
        for name, value in physics.items()
        if name in options or (further and name not in attributes)
    }
    env = _bare(id_, {**arguments, **given})
    bare: Any = env.unwrapped
    for name in physics.keys() - given.keys():
        known = _physics(bare)
        if name not in known:
            raise unknown(f"physics of {id_}", name, sorted({*known, *options}) or ["none"])
        setattr(bare, name, physics[name])
    if hasattr(bare, "polemass_length"):  # CartPole's constructor derives these two from the others
        bare.total_mass = bare.masspole + bare.masscart
        bare.polemass_length = bare.masspole * bare.length
    return observed(env, id_, _stack(id_, arguments))


def with_limit(id_: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments, with a limit of steps where the package's environments have none."""
    package = package_of(id_)
    return {**({LIMIT: package.steps} if package and package.steps else {}), **arguments}


def check_arguments(wanted: Wanted) -> None:
    """Raise UserError for an argument that the environment's constructor does not take."""
    named = [name for name in wanted.arguments if name not in wanted.counts]
    options, physics = _settings(wanted.id) if named else ({}, [])
    if any(option.kind is option.VAR_KEYWORD for option in options.values()):
        return
    for name in named:
        if name in options:
            continue
        if name in physics:
            value = wanted.arguments[name]
            raise UserError(f"{name} of {wanted.id} must be a number or a range LOW..HIGH, got {value!r}")
        raise unknown(f"argument of {wanted.id}", name, list(options) or ["none"])


def check_spaces(wanted: Wanted, physics: Mapping[str, float]) -> dict[str, Any]:
    """Return the sizes that a network needs; UserError for what cannot be made, or learned by Q-values."""
    from gymnasium.error import Error, NameNotFound, NamespaceNotFound

    id_, given = wanted.id, {**wanted.arguments, **physics}
    # No such name or package; a constructor's refusal. What it raises of arguments may be anything.
    refusals = Exception if given else (Error, ImportError, ValueError)
    try:
        register(id_)
        check_arguments(wanted)
        env = make(id_, wanted.arguments, physics)
    except UserError:
        raise
    except refusals as error:
        kind = "" if isinstance(error, Error | ImportError | ValueError) else f"{type(error).__name__}: "
        reason = kind + " ".join(str(error).split())
        if isinstance(error, NameNotFound | NamespaceNotFound) and ":" not in id_:
            reason += f" Where a package registers it, name that too: 'gym:PACKAGE:{id_}'"
        shown = "".join(f", {name} = {value}" for name, value in given.items())
        raise UserError(f"gymnasium cannot make {id_!r}{shown}: {reason}") from error
    with closing(env):
        sizes = _sizes(env, wanted)
        if physics:
            _check_first_step(env, id_, sizes["first_action"], physics)
    return sizes


def _sizes(env: "Env[Any, Any]", wanted: Wanted) -> dict[str, Any]:
    """Return the sizes that a network needs; UserError for what is not learned by Q-values."""
    from gymnasium.spaces import Discrete

    actions, observations, spec, id_ = env.action_space, env.observation_space, env.spec, wanted.id
    if not isinstance(actions, Discrete):
        raise UserError(f"{id_} must have discrete actions, one Q-value each; its actions are {actions}")
    sizes = sizes_of(observations, _stack(id_, wanted.arguments))
    if sizes is None:
        raise UserError(
            f"{id_} must have observations that gymnasium flattens to numbers, or pictures in bytes; "
            f"its observation is {observations}"
        )
    if spec is None or not (spec.max_episode_steps or spec.kwargs.get("max_num_frames_per_episode")):
        raise UserError(
            f"{id_} must end its episodes: a greedy one might go on for ever; "
            f"add {LIMIT}=500, say, after its '?'"
        )
    return {**sizes, "num_actions": int(actions.n), "first_action": int(actions.start)}


def _check_first_step(
    env: "Env[Any, Any]", id_: str, first_action: int, physics: Mapping[str, float]
) -> None:
    """Raise UserError for physics by which one step leads to no number, as a pole of length 0 does."""
    with np.errstate(all="ignore"):
        try:
            env.reset(seed=0)
            seen, *_ = env.step(first_action)
            reason = "" if np.isfinite(np.asarray(seen)).all() else "its observation is not finite"
        except ArithmeticError as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        except Exception:  # a fault of its code shows itself when somebody acts in it
            return
    if reason:
        shown = ", ".join(f"{name} = {value:g}" for name, value in physics.items())
        raise UserError(f"{id_} cannot be stepped with {shown} ({reason}): set other numbers")


def _stack(id_: str, arguments: Mapping[str, Any]) -> int:
    """Return how many of its last frames an agent sees."""
    default = ATARI_STACK if is_atari(id_) and shows_the_screen(arguments) else 1
    return int(arguments.get(FRAME_STACK, default))


def _bare(id_: str, arguments: Mapping[str, Any]) -> "Env[Any, Any]":
    import gymnasium

    given = {name: value for name, value in arguments.items() if name != FRAME_STACK}
    if is_atari(id_) and shows_the_screen(given):
        return atari_game(id_, given)
    return gymnasium.make(id_, disable_env_checker=True, **given)


def _physics(bare: Any) -> list[str]:
    """Return the names of the numbers that an environment has."""
    return [name for name, value in vars(bare).items() if type(value) in (int, float) and name[0] != "_"]


def _settings(id_: str) -> tuple[Mapping[str, inspect.Parameter], list[str]]:
    """Return the parameters of an environment's constructor, and the names of the numbers that it has."""
    import gymnasium

    with closing(gymnasium.make(id_, disable_env_checker=True)) as env:
        return inspect.signature(type(env.unwrapped)).parameters, _physics(env.unwrapped)


def _as_declared(value: float, parameter: inspect.Parameter | None) -> float | bool:
    """Return a number as the constructor wants it: whole, or a truth, unless its default is a float."""
    default = parameter.default if parameter else 0.0
    if type(default) is bool and value in (0, 1):
        return bool(value)
    return int(value) if type(default) is not float and value == int(value) else value
