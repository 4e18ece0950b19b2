"""What an agent sees of an environment, by gymnasium's own wrappers: a list of numbers, or pictures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.core.errors import UserError, shown
from models.data.game_packages import MINATAR
from models.data.worlds import ATARI_OPTIONS, LIMIT

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.spaces import Space

GREY = "grayscale"
"""What gymnasium calls a screen without colours."""
SMALLEST = 3
"""Pixels of a picture's shorter side at least; what is smaller is a list of numbers."""


def atari_game(id_: str, arguments: Mapping[str, Any]) -> "Env[Any, Any]":
    """Make an Atari game that shows its screen as Mnih et al. 2015 and Machado et al. 2018 show it.

    Every fourth frame, grey, 84 x 84, the last two of the four as one, and up to 30 frames without an action
    at the start; the arguments say otherwise. A limit of steps is one of the agent's steps.
    Raises UserError for arguments that would change nothing.
    """
    if "frameskip" in arguments:
        raise UserError(
            f"frameskip of {id_} is not heeded where its screen is shown: say frame_skip, one whole number "
            f"for all clients, got {shown(arguments['frameskip'])}"
        )
    if arguments.get("obs_type", GREY) != GREY:
        raise UserError(
            f"obs_type of {id_} must be {GREY} or ram, got {shown(arguments['obs_type'])}: its screen is "
            "shown in grey"
        )
    import gymnasium
    from gymnasium.wrappers import AtariPreprocessing, TimeLimit

    own = {name: value for name, value in arguments.items() if name not in (*ATARI_OPTIONS, LIMIT)}
    options = {name: arguments[name] for name in ATARI_OPTIONS if name in arguments}
    # The screen in colour takes longer, and nobody sees it.
    screen: dict[str, Any] = {"obs_type": GREY, **own, "frameskip": 1}
    env: Env[Any, Any] = gymnasium.make(id_, disable_env_checker=True, **screen)
    env = AtariPreprocessing(env, **options)
    return TimeLimit(env, arguments[LIMIT]) if LIMIT in arguments else env


def shows_the_screen(arguments: Mapping[str, Any]) -> bool:
    """Return whether an Atari game is to show its screen, and not its memory or its sound."""
    return arguments.get("obs_type") != "ram" and not arguments.get("sound_obs")


def observed(env: "Env[Any, Any]", id_: str, stack: int) -> "Env[Any, Any]":
    """Return the environment with what an agent sees: pictures as they are, all else as a list of numbers.

    Raises UserError for pictures whose channels come first.
    """
    from gymnasium.spaces import Box
    from gymnasium.wrappers import FlattenObservation, FrameStackObservation

    if id_.startswith(f"{MINATAR}/"):
        from models.data.small_seeds import SmallSeeds

        env = SmallSeeds(env)
    _check_channels(env.observation_space, id_)
    pictures = is_picture(env.observation_space)
    if stack > 1:
        env = FrameStackObservation(env, stack)
    space = env.observation_space
    if pictures or (isinstance(space, Box) and len(space.shape) == 1) or not _flattens(space):
        return env
    return FlattenObservation(env)


def is_picture(space: "Space[Any]") -> bool:
    """Return whether observations are pictures: (H, W) or (H, W, C) in a byte or a bit a pixel."""
    from gymnasium.spaces import Box

    return (
        isinstance(space, Box)
        and len(space.shape) in (2, 3)
        and min(space.shape[:2]) >= SMALLEST
        and space.dtype in ("uint8", "bool")
    )


def _check_channels(space: "Space[Any]", id_: str) -> None:
    """Raise UserError for bytes (3 or 4, H, W), which would be taken for a low picture of W channels."""
    shape = space.shape or ()
    if is_picture(space) and space.dtype == "uint8" and shape[0] in (3, 4) and min((*shape, 0)[1:3]) > 4:
        raise UserError(
            f"{id_} must show pictures (H, W, C), and shows {shape}, with channels first: wrap it by "
            "gymnasium.wrappers.TransformObservation"
        )


def sizes_of(space: "Space[Any]", stack: int) -> dict[str, Any] | None:
    """Return the sizes that a network needs; None for what is neither a list of numbers nor pictures."""
    from gymnasium.spaces import Box

    if not isinstance(space, Box):
        return None
    if len(space.shape) == 1:
        return {"observation_size": int(space.shape[0])}
    frame = space.shape[1:] if stack > 1 else space.shape
    height, width, channels = (*frame, 1)[:3]
    return {
        "observation_size": stack * height * width * channels,
        "frame_stack": stack,
        "frame_height": int(height),
        "frame_width": int(width),
        "frame_channels": int(channels),
        "max_value": max(float(space.high.max()), 1.0),
    }


def _flattens(space: "Space[Any]") -> bool:
    """Return whether gymnasium can make a list of numbers of every observation, of one length."""
    from gymnasium.spaces import Box
    from gymnasium.spaces.utils import flatten_space

    try:
        return isinstance(flatten_space(space), Box)
    except NotImplementedError:
        return False
