"""Packages that bring environments, as polyfed's extras install them."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from models.core.errors import UserError

ATARI, MINATAR = "ALE", "MinAtar"
"""What stands before the slash in the ids of their environments."""


@dataclass(frozen=True)
class GamePackage:
    """What environments need beside gymnasium."""

    modules: tuple[str, ...]
    """Importing the first one registers them, unless it has a function for it."""
    extra: str
    """The extra of polyfed that installs them."""
    registers: str = ""
    """The name of that function."""
    steps: int = 0
    """Steps to which episodes are limited that would have no end, unless a dataset's name says otherwise."""


PACKAGES = {
    ATARI: GamePackage(("ale_py", "cv2"), "atari"),
    MINATAR: GamePackage(("minatar.gym",), "minatar", "register_envs", steps=1_000),
    "LunarLander": GamePackage(("Box2D",), "box2d"),
    "BipedalWalker": GamePackage(("Box2D",), "box2d"),
    "CarRacing": GamePackage(("Box2D", "pygame"), "box2d"),
}
"""What an id begins with -> where its environments are from."""


def package_of(id_: str) -> GamePackage | None:
    """Return the package of an environment's id; None where gymnasium, or a package that it names, has it."""
    return PACKAGES.get(_beginning(id_)) if ":" not in id_ else None


def is_atari(id_: str) -> bool:
    """Return whether an id is one of the Arcade Learning Environment's, with its package before it or not."""
    return _beginning(id_.rpartition(":")[2]) == ATARI


def register(id_: str) -> None:
    """Have gymnasium know an id that a package brings; UserError where the package is not installed."""
    package = package_of(id_)
    if package is None:
        return
    if not all(find_spec(module.partition(".")[0]) for module in package.modules):
        raise UserError(
            f"environment {id_!r} needs a package that is not here: pip install 'polyfed[{package.extra}]'"
        )
    module = import_module(package.modules[0])
    if package.registers and not _is_registered(id_):  # twice would be warned about
        getattr(module, package.registers)()
    if package is PACKAGES[ATARI]:  # which greets whoever starts it, from below Python
        module.ALEInterface.setLoggerMode(module.LoggerMode.Error)


def _is_registered(id_: str) -> bool:
    import gymnasium

    return id_ in gymnasium.registry


def _beginning(id_: str) -> str:
    """Return the namespace of an id, else its name without a version."""
    namespace, slash, _ = id_.partition("/")
    return namespace if slash else id_.rpartition("-v")[0]
